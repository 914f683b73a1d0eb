//! The send side to many CPUs.
//!
//! A mask form runs on mask AND online and answers the mask that ran. One remote target is a plain
//! call; more use the source's broadcast record. The local run overlaps the remote ones. Predicates
//! are asked before anything is queued. A thread that is no CPU has no record: it queues stack records
//! in batches. A panic waits until all targets have finished; the lowest CPU's continues in the caller.

use crate::cpu::{CpuId, CpuMask};
use crate::error::{CallError, Refused};
use crate::fan_out::Shared;
use crate::guard::Pinned;
use crate::panics::PanicSlot;
use crate::platform::Platform;
use crate::smp::Smp;
use crate::sync::{full_fence, mutant};

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Runs `f` on every online CPU of `cpus` but this one, and waits for all. Answers who ran it.
    ///
    /// The closure is shared by the CPUs and gets the id of the one it runs on; it may borrow this
    /// stack. An empty mask is fine. Context and panics as [`call`](Self::call).
    ///
    /// # Errors
    /// `InterruptsOff`, `InHandler`, with the closure.
    #[doc(alias = "smp_call_function_many")]
    #[track_caller]
    #[inline]
    pub fn call_many<F>(&self, cpus: &CpuMask<W>, f: F) -> Result<CpuMask<W>, Refused<F>>
    where
        F: Fn(CpuId) + Sync,
    {
        self.waited(f, || cpus.and(&self.online.load()), Local::LeaveOut)
    }

    /// Runs `f` on every online CPU but this one, and waits. As [`call_many`](Self::call_many).
    ///
    /// # Errors
    /// As [`call_many`](Self::call_many).
    #[doc(alias = "smp_call_function")]
    #[track_caller]
    #[inline]
    pub fn call_others<F>(&self, f: F) -> Result<CpuMask<W>, Refused<F>>
    where
        F: Fn(CpuId) + Sync,
    {
        self.waited(f, || self.online.load(), Local::LeaveOut)
    }

    /// Runs `f` on every online CPU, this one included while the others run, and waits.
    ///
    /// # Errors
    /// As [`call_many`](Self::call_many).
    #[track_caller]
    #[inline]
    pub fn on_each_cpu<F>(&self, f: F) -> Result<CpuMask<W>, Refused<F>>
    where
        F: Fn(CpuId) + Sync,
    {
        self.waited(f, || self.online.load(), Local::Include)
    }

    /// Runs `f` on every online CPU of `cpus`, this one included if it is among them, and waits.
    ///
    /// # Errors
    /// As [`call_many`](Self::call_many).
    #[track_caller]
    #[inline]
    pub fn on_each_cpu_mask<F>(&self, cpus: &CpuMask<W>, f: F) -> Result<CpuMask<W>, Refused<F>>
    where
        F: Fn(CpuId) + Sync,
    {
        self.waited(f, || cpus.and(&self.online.load()), Local::Include)
    }

    /// Runs `f` on every online CPU that `wanted` answers `true` for, this one included, and waits.
    ///
    /// The predicate runs here, with the id it asks about, before anything is queued: if it
    /// panics, nothing has happened. Nothing is allocated.
    ///
    /// # Errors
    /// As [`call_many`](Self::call_many).
    #[track_caller]
    #[inline]
    pub fn on_each_cpu_cond<C, F>(&self, mut wanted: C, f: F) -> Result<CpuMask<W>, Refused<F>>
    where
        C: FnMut(CpuId) -> bool,
        F: Fn(CpuId) + Sync,
    {
        let choose = || {
            let online = self.online.load();
            let asked = |cpu| match online.first() {
                Some(first) if mutant!("bug_predicate_asked_for_another_cpu") => first,
                _ => cpu,
            };
            online.iter().filter(|&cpu| wanted(asked(cpu))).collect()
        };
        self.waited(f, choose, Local::Include)
    }

    /// Returns when every CPU that was online at entry, this one left out, has run a handler
    /// outside any masked region after entry. What this CPU stored before is visible there.
    ///
    /// # Errors
    /// `InterruptsOff`, `InHandler`.
    #[track_caller]
    pub fn kick_all_cpus_sync(&self) -> Result<CpuMask<W>, CallError> {
        // Orders our earlier stores before the look at who is online: a CPU that is not seen there, for
        // it is just coming, sees the stores (E25). To the others the calls carry them (E4, E12).
        full_fence!("e25_kick_fence");
        Ok(self.call_others(|_| ())?)
    }

    /// The common part of the waited mask forms.
    #[track_caller]
    #[inline]
    fn waited<F>(
        &self,
        f: F,
        choose: impl FnOnce() -> CpuMask<W>,
        local: Local,
    ) -> Result<CpuMask<W>, Refused<F>>
    where
        F: Fn(CpuId) + Sync,
    {
        let _pinned = Pinned::new(&self.platform);
        let me = self.platform.current_cpu();
        if let Err(error) = self.may_wait(me) {
            return Err(Refused::new(error, f));
        }
        let mut targets = choose();
        let here = me.filter(|&me| targets.remove(me) && local == Local::Include);
        let mut shared = Shared {
            f,
            panics: PanicSlot::<P>::new(),
        };
        let run_local = here.map(|here| {
            move |f: &F, panics: &PanicSlot<P>| {
                if let Err(panic) = self.catch_here::<F, ()>(here, || f(here)) {
                    panics.put(&self.platform, here, panic);
                }
            }
        });
        self.fan_out(self.waiter(me), &mut targets, &mut shared, run_local);
        here.map(|here| targets.insert(here));
        match shared.panics.take() {
            None => Ok(targets),
            Some(panic) => self.platform.resume(panic),
        }
    }
}

/// Does the local CPU run the function too?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Local {
    Include,
    LeaveOut,
}
