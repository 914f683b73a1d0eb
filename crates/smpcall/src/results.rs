//! Per-CPU results of a waited call to many, in the caller's own storage.
//!
//! Slot i is CPU i's. Each CPU writes its own slot and marks it; the marks are read when all have
//! finished, so they order nothing by themselves. If one CPU panics, what the others wrote is
//! dropped before the panic continues in the caller.

use core::fmt;
use core::mem::MaybeUninit;

use crate::cpu::{AtomicCpuMask, CpuId, CpuMask};
use crate::error::{CallError, Refused};
use crate::many::Local;
use crate::platform::Platform;
use crate::smp::Smp;

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Runs `f` on every online CPU of `cpus` but this one, waits for all, and gives their results.
    ///
    /// They go to the caller's storage, whose slot i is CPU i's. As [`call_many`](Self::call_many)
    /// in everything else.
    ///
    /// # Errors
    /// As [`call_many`](Self::call_many), and `ResultsTooShort`; nothing has run then.
    #[track_caller]
    pub fn call_many_into<'a, R, F>(
        &self,
        cpus: &CpuMask<W>,
        results: &'a mut [MaybeUninit<R>],
        f: F,
    ) -> Result<Results<'a, R, W>, Refused<F>>
    where
        F: Fn(CpuId) -> R + Sync,
        R: Send,
    {
        self.fill(cpus, results, f, Local::LeaveOut)
    }

    /// Runs `f` on every online CPU of `cpus`, this one included if it is among them, waits, and
    /// gives their results. As [`call_many_into`](Self::call_many_into).
    ///
    /// # Errors
    /// As [`call_many_into`](Self::call_many_into).
    #[track_caller]
    pub fn on_each_cpu_mask_into<'a, R, F>(
        &self,
        cpus: &CpuMask<W>,
        results: &'a mut [MaybeUninit<R>],
        f: F,
    ) -> Result<Results<'a, R, W>, Refused<F>>
    where
        F: Fn(CpuId) -> R + Sync,
        R: Send,
    {
        self.fill(cpus, results, f, Local::Include)
    }

    /// Runs `f` on every online CPU, this one included, waits, and gives their results. As
    /// [`call_many_into`](Self::call_many_into).
    ///
    /// # Errors
    /// As [`call_many_into`](Self::call_many_into).
    #[track_caller]
    pub fn on_each_cpu_into<'a, R, F>(
        &self,
        results: &'a mut [MaybeUninit<R>],
        f: F,
    ) -> Result<Results<'a, R, W>, Refused<F>>
    where
        F: Fn(CpuId) -> R + Sync,
        R: Send,
    {
        self.fill(&self.possible.load(), results, f, Local::Include)
    }

    #[track_caller]
    fn fill<'a, R, F>(
        &self,
        cpus: &CpuMask<W>,
        results: &'a mut [MaybeUninit<R>],
        f: F,
        local: Local,
    ) -> Result<Results<'a, R, W>, Refused<F>>
    where
        F: Fn(CpuId) -> R + Sync,
        R: Send,
    {
        let last = cpus.and(&self.possible.load()).last();
        let needed = last.map_or(0, |last| last.index() + 1);
        if results.len() < needed {
            return Err(Refused::new(CallError::ResultsTooShort { needed }, f));
        }
        let filling = Filling {
            platform: &self.platform,
            slots: results.as_mut_ptr(),
            written: AtomicCpuMask::<W>::new(),
        };
        let run = |cpu: CpuId| {
            let result = f(cpu);
            filling.put(cpu, result);
        };
        let ran = match local {
            Local::LeaveOut => self.call_many(cpus, run),
            Local::Include => self.on_each_cpu_mask(cpus, run),
        };
        match ran {
            Ok(ran) => {
                core::mem::forget(filling);
                Ok(Results {
                    slots: results,
                    left: ran,
                    ran,
                })
            }
            Err(refused) => {
                let error = refused.error;
                Err(Refused::new(error, f))
            }
        }
    }
}

/// Results that are being written. Its drop, when a panic continues in the caller, drops them.
struct Filling<'a, P: Platform, R, const W: usize> {
    platform: &'a P,
    slots: *mut MaybeUninit<R>,
    written: AtomicCpuMask<W>,
}

// SAFETY: each CPU writes its own slot, once, and what it writes is `Send`.
unsafe impl<P: Platform, R: Send, const W: usize> Sync for Filling<'_, P, R, W> {}

impl<P: Platform, R, const W: usize> Filling<'_, P, R, W> {
    /// The CPU's result.
    fn put(&self, cpu: CpuId, result: R) {
        // SAFETY: the slice was found to be long enough for every CPU that may run this.
        let slot = unsafe { self.slots.add(cpu.index()) };
        // SAFETY: the slot is this CPU's, and the caller waits for it.
        unsafe { slot.write(MaybeUninit::new(result)) };
        self.written.insert(cpu);
    }
}

impl<P: Platform, R, const W: usize> Drop for Filling<'_, P, R, W> {
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one obligation covers the accesses of the block"
    )]
    fn drop(&mut self) {
        for cpu in &self.written.load() {
            // SAFETY: as in `put`.
            let slot = unsafe { self.slots.add(cpu.index()) };
            // SAFETY: written, every CPU has finished, and it is read once.
            let result = unsafe { slot.read().assume_init() };
            // A panic is on its way already: a second one must not meet it.
            if let Err(panic) = self.platform.catch(|| drop(result)) {
                self.platform.report_panic(cpu, panic);
            }
        }
    }
}

/// The results of a call to many, in the order of the CPUs; what is not taken is dropped with it.
pub struct Results<'a, R, const W: usize> {
    slots: &'a mut [MaybeUninit<R>],
    /// Whose result is still there.
    left: CpuMask<W>,
    ran: CpuMask<W>,
}

impl<R: fmt::Debug, const W: usize> fmt::Debug for Results<'_, R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self
            .left
            .iter()
            .filter_map(|cpu| Some((cpu, self.get(cpu)?)));
        f.debug_map().entries(left).finish()
    }
}

impl<R, const W: usize> Results<'_, R, W> {
    /// The CPUs that ran the function.
    pub fn ran(&self) -> CpuMask<W> {
        self.ran
    }

    /// The result of a CPU that ran the function, unless it was taken.
    pub fn get(&self, cpu: CpuId) -> Option<&R> {
        // SAFETY: it ran, so it wrote its slot, and it was not taken.
        (self.left.contains(cpu)).then(|| unsafe { self.slots[cpu.index()].assume_init_ref() })
    }
}

impl<R, const W: usize> Iterator for Results<'_, R, W> {
    type Item = (CpuId, R);

    fn next(&mut self) -> Option<(CpuId, R)> {
        let cpu = self.left.first()?;
        self.left.remove(cpu);
        // SAFETY: it ran, so it wrote its slot; the bit went, so it is read once.
        Some((cpu, unsafe { self.slots[cpu.index()].assume_init_read() }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.left.len();
        (left, Some(left))
    }
}

impl<R, const W: usize> ExactSizeIterator for Results<'_, R, W> {}

impl<R, const W: usize> Drop for Results<'_, R, W> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}
