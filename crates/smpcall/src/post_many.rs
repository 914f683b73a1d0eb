//! The send side to many CPUs, not waited for.
//!
//! The closure is copied to each target's posted lane, so a broadcast keeps its place among the
//! source's other posts. Targets whose lane is full are named; the others will run it.

use core::fmt;

use crate::cpu::{CpuId, CpuMask};
use crate::error::{CallError, Refused};
use crate::guard::Pinned;
use crate::many::Local;
use crate::platform::Platform;
use crate::smp::Smp;

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Runs `f` soon on every online CPU of `cpus` but this one. Answers who will run it.
    ///
    /// The closure is copied to each target; it holds at most three words. Context as
    /// [`post`](Self::post).
    ///
    /// # Errors
    /// Names the CPUs whose lanes were full; the others will run it.
    #[doc(alias = "smp_call_function_many")]
    pub fn post_many<F>(&self, cpus: &CpuMask<W>, f: F) -> Result<CpuMask<W>, PostManyError<F, W>>
    where
        F: Fn(CpuId) + Copy + Send + 'static,
    {
        self.posted(&cpus.and(&self.online.load()), f, Local::LeaveOut)
    }

    /// Runs `f` soon on every online CPU but this one. As [`post_many`](Self::post_many).
    ///
    /// # Errors
    /// As [`post_many`](Self::post_many).
    #[doc(alias = "smp_call_function")]
    pub fn post_others<F>(&self, f: F) -> Result<CpuMask<W>, PostManyError<F, W>>
    where
        F: Fn(CpuId) + Copy + Send + 'static,
    {
        self.posted(&self.online.load(), f, Local::LeaveOut)
    }

    /// Runs `f` soon on every online CPU, inline on this one. As [`post_many`](Self::post_many).
    ///
    /// # Errors
    /// As [`post_many`](Self::post_many).
    #[doc(alias = "on_each_cpu")]
    pub fn post_each<F>(&self, f: F) -> Result<CpuMask<W>, PostManyError<F, W>>
    where
        F: Fn(CpuId) + Copy + Send + 'static,
    {
        self.posted(&self.online.load(), f, Local::Include)
    }

    /// Runs `f` soon on every online CPU of `cpus`, inline on this one if it is among them.
    /// As [`post_many`](Self::post_many).
    ///
    /// # Errors
    /// As [`post_many`](Self::post_many).
    #[doc(alias = "on_each_cpu_mask")]
    pub fn post_each_mask<F>(
        &self,
        cpus: &CpuMask<W>,
        f: F,
    ) -> Result<CpuMask<W>, PostManyError<F, W>>
    where
        F: Fn(CpuId) + Copy + Send + 'static,
    {
        self.posted(&cpus.and(&self.online.load()), f, Local::Include)
    }

    /// Runs `f` soon on every online CPU that `wanted` answers `true` for, inline on this one.
    /// As [`post_many`](Self::post_many); the predicate runs before anything is queued.
    ///
    /// # Errors
    /// As [`post_many`](Self::post_many).
    #[doc(alias = "on_each_cpu_cond")]
    pub fn post_each_cond<C, F>(
        &self,
        mut wanted: C,
        f: F,
    ) -> Result<CpuMask<W>, PostManyError<F, W>>
    where
        C: FnMut(CpuId) -> bool,
        F: Fn(CpuId) + Copy + Send + 'static,
    {
        let cpus = self
            .online
            .load()
            .iter()
            .filter(|&cpu| wanted(cpu))
            .collect();
        self.posted(&cpus, f, Local::Include)
    }

    /// The common part of the posted mask forms.
    fn posted<F>(
        &self,
        cpus: &CpuMask<W>,
        f: F,
        local: Local,
    ) -> Result<CpuMask<W>, PostManyError<F, W>>
    where
        F: Fn(CpuId) + Copy + Send + 'static,
    {
        let _pinned = Pinned::new(&self.platform);
        let me = self.platform.current_cpu();
        let mut posted = CpuMask::EMPTY;
        let mut full = CpuMask::EMPTY;
        for cpu in cpus.iter().filter(|&cpu| Some(cpu) != me) {
            match self.post_with_id(me, cpu, self.own(cpu), f) {
                Ok(()) => posted.insert(cpu),
                Err(Refused {
                    error: CallError::Full { .. },
                    ..
                }) => full.insert(cpu),
                Err(_offline) => false,
            };
        }
        if let Some(me) = me.filter(|&me| cpus.contains(me) && local == Local::Include) {
            self.run_posted_here::<F>(me, || f(me));
            posted.insert(me);
        }
        if full.is_empty() {
            Ok(posted)
        } else {
            Err(PostManyError {
                posted,
                full,
                closure: f,
            })
        }
    }
}

/// A posted broadcast that some targets had no room for.
pub struct PostManyError<F, const W: usize> {
    /// The CPUs that will run it.
    pub posted: CpuMask<W>,
    /// The CPUs whose lane was full: post it to these again.
    pub full: CpuMask<W>,
    /// The closure.
    pub closure: F,
}

impl<F, const W: usize> fmt::Debug for PostManyError<F, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { posted, full, .. } = self;
        f.debug_struct("PostManyError")
            .field("posted", posted)
            .field("full", full)
            .finish_non_exhaustive()
    }
}

impl<F, const W: usize> fmt::Display for PostManyError<F, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the lanes of CPUs {} are full", self.full)
    }
}

impl<F, const W: usize> core::error::Error for PostManyError<F, W> {}
