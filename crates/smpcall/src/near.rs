//! One CPU of a set, chosen by how far it is.
//!
//! A call costs what its cache line's way costs, so where several CPUs would do, the nearest is asked: a
//! hardware thread of the same core, one that shares a cache, one of the same memory node, then
//! any. The platform tells the distance ([`Platform::distance`]); without more knowledge it is
//! that of memory nodes. `call_any` in `call.rs` is the seed's form, which knows nodes only.

use core::fmt;

use crate::cpu::{CpuId, CpuMask};
use crate::error::{CallError, Refused};
use crate::guard::Pinned;
use crate::platform::Platform;
use crate::smp::Smp;

/// How far one CPU is from another; the smaller, the nearer.
///
/// Up to [`NODE`](Self::NODE) the values are this library's; beyond, those of the firmware's table
/// of node distances, which begins there.
///
/// ```
/// use smpcall::Distance;
/// assert!(Distance::CORE < Distance::cache(2) && Distance::cache(2) < Distance::cache(3));
/// assert!(Distance::cache(3) <= Distance::CACHE && Distance::CACHE < Distance::NODE);
/// assert!(Distance::NODE < Distance::nodes(21));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance(u32);

impl Distance {
    /// The same CPU.
    pub const SELF: Self = Self(0);
    /// Hardware threads of one core.
    pub const CORE: Self = Self(1);
    /// They share some cache: the farthest that do.
    pub const CACHE: Self = Self(9);
    /// The same memory node, no shared cache.
    #[doc(alias = "LOCAL_DISTANCE")]
    pub const NODE: Self = Self(10);
    /// Different memory nodes, of which nothing more is known.
    #[doc(alias = "REMOTE_DISTANCE")]
    pub const REMOTE: Self = Self(20);

    /// Different cores that share a cache of this level, the lowest that they share.
    pub const fn cache(level: u32) -> Self {
        Self(if level < 8 { 1 + level } else { 9 })
    }

    /// Memory nodes that are so far apart by the firmware's table; at least 10, which is one and the
    /// same node.
    #[doc(alias = "node_distance")]
    pub const fn nodes(distance: u32) -> Self {
        Self(if distance > 10 { distance } else { 10 })
    }

    /// As a number: 0 to 9 as above, then the firmware's.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Distance({self})")
    }
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SELF => f.write_str("same CPU"),
            Self::CORE => f.write_str("same core"),
            Self(level @ 2..=9) => write!(f, "shared L{}", level - 1),
            Self::NODE => f.write_str("same node"),
            Self(far) => write!(f, "other node, {far}"),
        }
    }
}

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// How far `to` is from `from`, by what the platform knows.
    pub fn distance(&self, from: CpuId, to: CpuId) -> Distance {
        self.platform().distance(from, to)
    }

    /// The present CPUs that are at most so far from `cpu`, itself included: those of its core, its
    /// caches or its node.
    ///
    /// ```
    /// # use smpcall::{CpuId, CpuMask, Distance, Platform, Smp};
    /// fn on_my_cache<P: Platform>(smp: &Smp<P>, cpu: CpuId) -> CpuMask<4> {
    ///     smp.cpus_within(cpu, Distance::CACHE)
    /// }
    /// ```
    #[doc(alias = "cpumask_of_node")]
    #[doc(alias = "cpu_coregroup_mask")]
    pub fn cpus_within(&self, cpu: CpuId, farthest: Distance) -> CpuMask<W> {
        let present = self.present_cpus();
        let near = |&other: &CpuId| self.distance(cpu, other) <= farthest;
        present.iter().filter(near).collect()
    }

    /// Runs `f` on the CPU of `cpus` that is nearest to `near` and online, and waits. Answers
    /// which, and the result. Among equally near ones the lowest id is taken.
    ///
    /// With [`cpus_within`](Self::cpus_within) as the set no farther one is taken. The calling CPU
    /// is a candidate as any other, and runs `f` inline if it is the nearest. Context and panics as
    /// [`call`](Self::call).
    ///
    /// # Errors
    /// `EmptyMask` if no CPU of the mask is online; otherwise as [`call`](Self::call).
    #[doc(alias = "smp_call_function_any")]
    #[track_caller]
    pub fn call_any_near<R, F>(
        &self,
        near: CpuId,
        cpus: &CpuMask<W>,
        f: F,
    ) -> Result<(CpuId, R), Refused<F>>
    where
        F: FnOnce() -> R + Send,
        R: Send,
    {
        let _pinned = Pinned::new(self.platform());
        let me = self.current_cpu();
        let waiter = self.waiter(me);
        let mut candidates = cpus.and(&self.online_cpus());
        let mut f = f;
        // A CPU that leaves between the choice and the call is taken out, and the next one asked.
        while let Some(cpu) = self.nearest_to(near, &candidates) {
            if me == Some(cpu) {
                return Ok((cpu, self.run_here(cpu, f)));
            }
            if let Err(error) = self.may_wait(me) {
                return Err(Refused::new(error, f));
            }
            match self.call_remote(waiter, cpu, f, |_| ()) {
                Ok(outcome) => return Ok((cpu, self.unwrap(outcome))),
                Err(refused) => f = refused.closure,
            }
            candidates.remove(cpu);
        }
        Err(Refused::new(CallError::EmptyMask, f))
    }

    /// Runs `f` soon on the CPU of `cpus` that is nearest to `near` and online, as
    /// [`call_any_near`](Self::call_any_near) chooses it.
    ///
    /// # Errors
    /// `EmptyMask`, or `Full` if the lane of the nearest CPU is; the closure comes back.
    #[doc(alias = "smp_call_function_any")]
    pub fn post_any_near<F>(
        &self,
        near: CpuId,
        cpus: &CpuMask<W>,
        f: F,
    ) -> Result<CpuId, Refused<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.post_chosen(cpus, f, |candidates| self.nearest_to(near, candidates))
    }

    /// The nearest candidate, the lowest of those that are equally near.
    fn nearest_to(&self, near: CpuId, candidates: &CpuMask<W>) -> Option<CpuId> {
        candidates
            .iter()
            .min_by_key(|&cpu| self.distance(near, cpu))
    }
}
