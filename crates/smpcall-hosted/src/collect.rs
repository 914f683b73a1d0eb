//! Results of each CPU in a vector, which is allocated before anything is called.

use std::mem::MaybeUninit;

use smpcall::{CpuId, Refused};

use crate::{CpuMask, Machine};

impl Machine {
    /// Runs `f` on every online CPU of `cpus` but this one, waits, and collects their results in
    /// the order of the CPUs. As [`call_many`](smpcall::Smp::call_many).
    ///
    /// ```
    /// use smpcall_hosted::{CpuId, CpuMask, Machine};
    /// let machine = Machine::builder().count(3).boot()?;
    /// let squares = machine.collect_many(&CpuMask::first_n(2), |cpu| cpu.get() * cpu.get())?;
    /// assert_eq!(squares, [(CpuId::new(0), 0), (CpuId::new(1), 1)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`call_many`](smpcall::Smp::call_many).
    #[track_caller]
    pub fn collect_many<R, F>(&self, cpus: &CpuMask, f: F) -> Result<Vec<(CpuId, R)>, Refused<F>>
    where
        F: Fn(CpuId) -> R + Sync,
        R: Send,
    {
        let (mut slots, mut collected) = self.room();
        collected.extend(self.call_many_into(cpus, &mut slots, f)?);
        Ok(collected)
    }

    /// Runs `f` on every online CPU, this one included, waits, and collects their results. As
    /// [`collect_many`](Self::collect_many).
    ///
    /// # Errors
    /// As [`on_each_cpu`](smpcall::Smp::on_each_cpu).
    #[track_caller]
    pub fn collect_each<R, F>(&self, f: F) -> Result<Vec<(CpuId, R)>, Refused<F>>
    where
        F: Fn(CpuId) -> R + Sync,
        R: Send,
    {
        let (mut slots, mut collected) = self.room();
        collected.extend(self.on_each_cpu_into(&mut slots, f)?);
        Ok(collected)
    }

    /// Storage for a result of every CPU, and for what is made of it.
    fn room<R>(&self) -> (Vec<MaybeUninit<R>>, Vec<(CpuId, R)>) {
        let cpus = self.nr_cpu_ids() as usize;
        let slots = (0..cpus).map(|_| MaybeUninit::uninit()).collect();
        (slots, Vec::with_capacity(cpus))
    }
}
