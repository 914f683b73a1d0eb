//! Per-CPU data of a machine, in storage that is as large as the machine.

use smpcall::{CpuId, PerCpuSlot};

use crate::Machine;

/// One value for each CPU of a machine, which only that CPU touches: [`smpcall::PerCpu`] with its places
/// on the heap.
pub type PerCpu<T> = smpcall::PerCpu<T, Box<[PerCpuSlot<T>]>>;

impl Machine {
    /// Data of each CPU that this machine may ever have, with a first value by CPU.
    ///
    /// ```
    /// use smpcall_hosted::{CpuId, Machine, WithoutClosure};
    /// use std::cell::Cell;
    /// let machine = Machine::builder().count(2).boot()?;
    /// let visits = machine.per_cpu(|_| Cell::new(0));
    /// let visit = |_| {
    ///     let counted = visits.with(&machine, |own| own.set(own.get() + 1));
    ///     assert_eq!(counted, Ok(()));
    /// };
    /// machine.on_each_cpu(visit).without_closure()?;
    /// machine.on_each_cpu(visit).without_closure()?;
    /// // Another CPU's value, by a call.
    /// let cpu1 = machine.call(CpuId::new(1), || visits.with(&machine, Cell::get)).without_closure()?;
    /// assert_eq!(cpu1, Ok(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn per_cpu<T>(&self, value: impl FnMut(CpuId) -> T) -> PerCpu<T> {
        let cpus = (0..self.nr_cpu_ids()).map(CpuId::new);
        PerCpu::new(cpus.map(value).map(PerCpuSlot::new).collect())
    }
}
