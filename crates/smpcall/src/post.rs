//! The send side to one CPU, not waited for.
//!
//! A posted closure of up to three words moves into a node of the target's pool; a descriptor is
//! its own node. Both travel in one queue, so that posts of one source keep their order. Posting
//! never blocks: no room is an error that hands the closure back.

use core::pin::Pin;
use core::ptr::NonNull;

use crate::area::{Area, Lane};
use crate::cpu::{CpuId, CpuMask};
use crate::csd::Csd;
use crate::error::{CallError, Refused};
use crate::guard::Pinned;
use crate::platform::Platform;
use crate::pool::{self, run_posted, run_posted_with_id};
use crate::post_ring::{Runs, run_slot, run_slot_with_id};
use crate::queue::Context;
use crate::record::Record;
use crate::report::StallCause;
use crate::smp::Smp;
use crate::stall::{Suspect, Watch, run_named};

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Runs `f` on `cpu` soon, and does not wait. On the calling CPU it runs inline at once.
    ///
    /// The closure holds at most three words (anything larger does not compile: own a [`Csd`] and
    /// [`post_csd`](Self::post_csd) it). It runs in handler context. Posts of one source to one target
    /// run in their order. A panic (hosted) is reported; the target lives on.
    ///
    /// Context: any, interrupts on or off, handlers included.
    ///
    /// # Errors
    /// Hands the closure back: `NoSuchCpu`, `Offline`, `Full`.
    #[doc(alias = "smp_call_function_single")]
    #[inline]
    pub fn post<F>(&self, cpu: CpuId, f: F) -> Result<(), Refused<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        let _pinned = Pinned::new(&self.platform);
        let me = self.platform.current_cpu();
        if me == Some(cpu) {
            self.run_posted_here::<F>(cpu, f);
            return Ok(());
        }
        match self.area(cpu) {
            Some(area) => self.post_to(me, cpu, area, f),
            None => Err(Refused::new(self.refusal(cpu), f)),
        }
    }

    /// As [`post`](Self::post), waiting for room if the lane is full.
    ///
    /// # Errors
    /// `NoSuchCpu` and `Offline`; with a full lane `InterruptsOff` and `InHandler`, where waiting
    /// is impossible. The closure comes back.
    #[track_caller]
    #[inline]
    pub fn post_wait<F>(&self, cpu: CpuId, f: F) -> Result<(), Refused<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        match self.post(cpu, f) {
            Err(Refused {
                error: CallError::Full { .. },
                closure,
            }) => self.wait_for_room(cpu, closure),
            other => other,
        }
    }

    /// The part of [`post_wait`](Self::post_wait) that waits.
    #[track_caller]
    #[inline(never)]
    fn wait_for_room<F>(&self, cpu: CpuId, mut f: F) -> Result<(), Refused<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        let mut watch = Watch::default();
        let suspect = Suspect {
            cause: Some(StallCause::NoRoom),
            ..Suspect::running(cpu, 0)
        };
        loop {
            let me = self.platform.current_cpu();
            if let Err(error) = self.may_wait(me) {
                return Err(Refused::new(error, f));
            }
            self.watched_turn(self.waiter(me), &mut watch, || suspect);
            match self.post(cpu, f) {
                Err(Refused {
                    error: CallError::Full { .. },
                    closure,
                }) => f = closure,
                other => {
                    self.end_watch(self.waiter(self.platform.current_cpu()), &watch);
                    return other;
                }
            }
        }
    }

    /// Runs `f` soon on one CPU of `cpus`, chosen as [`call_any`](Self::call_any) does.
    ///
    /// # Errors
    /// `EmptyMask`, or `Full` if the lane of the nearest CPU is; the closure comes back.
    #[doc(alias = "smp_call_function_any")]
    pub fn post_any<F>(&self, cpus: &CpuMask<W>, f: F) -> Result<CpuId, Refused<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        let _pinned = Pinned::new(&self.platform);
        let me = self.platform.current_cpu();
        if let Some(me) = me.filter(|&me| cpus.contains(me)) {
            self.run_posted_here::<F>(me, f);
            return Ok(me);
        }
        self.post_chosen(cpus, f, |candidates| self.nearest(me, candidates))
    }

    /// Posts to the online CPU of `cpus` that `choose` picks. One that leaves between the choice and
    /// the post is taken out, and the next one chosen.
    pub(crate) fn post_chosen<F>(
        &self,
        cpus: &CpuMask<W>,
        f: F,
        choose: impl Fn(&CpuMask<W>) -> Option<CpuId>,
    ) -> Result<CpuId, Refused<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        let mut candidates = cpus.and(&self.online.load());
        let mut f = f;
        while let Some(cpu) = choose(&candidates) {
            match self.post(cpu, f) {
                Ok(()) => return Ok(cpu),
                Err(Refused {
                    error: CallError::Offline { .. },
                    closure,
                }) => f = closure,
                Err(full) => return Err(full),
            }
            candidates.remove(cpu);
        }
        Err(Refused::new(CallError::EmptyMask, f))
    }

    /// Queues a pinned descriptor on `cpu`; its function is copied and the descriptor freed before
    /// the function runs, so the function may post it again. On the calling CPU it runs inline.
    ///
    /// Context: any. A static descriptor: `Pin::static_ref(&CSD)`, or [`post_static_csd`](Self::post_static_csd).
    ///
    /// # Errors
    /// `Busy` while it is queued; `NoSuchCpu`, `Offline`. Nothing blocks.
    #[doc(alias = "__smp_call_function_single")]
    #[doc(alias = "smp_call_function_single_async")]
    #[inline]
    pub fn post_csd<F>(&self, cpu: CpuId, csd: Pin<&Csd<F>>) -> Result<(), CallError>
    where
        F: Fn() + Copy + Send + 'static,
    {
        let _pinned = Pinned::new(&self.platform);
        if !csd.try_lock() {
            return Err(CallError::Busy);
        }
        if self.platform.current_cpu() == Some(cpu) {
            let function = *csd.function();
            csd.unlock();
            self.run_posted_here::<F>(cpu, function);
            return Ok(());
        }
        let Some(area) = self.area(cpu) else {
            csd.unlock();
            return Err(self.refusal(cpu));
        };
        self.platform.descriptor_posted();
        // SAFETY: 1 — locked just now; pinned, and its drop waits; 2 — this instance's queue.
        let node = unsafe { csd.ready_to_post::<P>(area.drop_wait(Lane::Posted)) };
        // SAFETY: 1 — locked, and valid until it is freed by its run.
        if !unsafe { self.post_node::<F>(cpu, area, node) } {
            csd.unlock();
            return Err(self.refusal(cpu));
        }
        Ok(())
    }

    /// [`post_csd`](Self::post_csd) of a descriptor that lives for ever.
    ///
    /// # Errors
    /// As [`post_csd`](Self::post_csd).
    pub fn post_static_csd<F>(&self, cpu: CpuId, csd: &'static Csd<F>) -> Result<(), CallError>
    where
        F: Fn() + Copy + Send + 'static,
    {
        self.post_csd(cpu, Pin::static_ref(csd))
    }

    /// Waits until what was posted to `cpu` before this has run.
    ///
    /// # Errors
    /// `NoSuchCpu`, `Offline`, `InterruptsOff`, `InHandler`.
    #[track_caller]
    pub fn flush(&self, cpu: CpuId) -> Result<(), CallError> {
        let _pinned = Pinned::new(&self.platform);
        let me = self.platform.current_cpu();
        self.may_wait(me)?;
        if me == Some(cpu) {
            let were_on = self.platform.irqs_save();
            self.drain(cpu);
            self.platform.irqs_restore(were_on);
            return Ok(());
        }
        let area = self.area(cpu).ok_or_else(|| self.refusal(cpu))?;
        let waiter = self.waiter(me);
        self.flush_rings(waiter, cpu, area);
        let record = Record::<fn(), crate::job::Outcome<P, ()>>::new(|| ());
        self.trace_queue::<fn()>(cpu, record.request());
        // SAFETY: 1 — new, and waited for below; 2 — this instance's queue.
        let pushed = unsafe { record.push::<P, ()>(&area.queues.posted) };
        if !self.announce_waited(cpu, area, pushed) {
            return Err(self.refusal(cpu));
        }
        let suspect = Suspect::running(cpu, record.request());
        self.wait_for(waiter, suspect, || record.is_done());
        Ok(())
    }

    /// Runs a posted function on this CPU; its panic is reported, as elsewhere.
    #[inline(never)]
    pub(crate) fn run_posted_here<Name>(&self, me: CpuId, f: impl FnOnce()) {
        if let Err(panic) = self.catch_here::<Name, ()>(me, f) {
            self.platform.report_panic(me, panic);
        }
    }

    /// Queues a closure on another CPU.
    #[inline]
    fn post_to<F>(
        &self,
        me: Option<CpuId>,
        cpu: CpuId,
        area: &Area<W, D>,
        f: F,
    ) -> Result<(), Refused<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        let runs = Runs {
            node: run_posted::<P, F, W, D>,
            slot: run_slot::<P, F>,
        };
        // SAFETY: 1 — both run an `F`.
        unsafe { self.enqueue(me, cpu, area, f, runs) }
    }

    /// Queues a closure that wants to know where it runs.
    #[inline]
    pub(crate) fn post_with_id<F>(
        &self,
        me: Option<CpuId>,
        cpu: CpuId,
        area: &Area<W, D>,
        f: F,
    ) -> Result<(), Refused<F>>
    where
        F: FnOnce(CpuId) + Send + 'static,
    {
        let runs = Runs {
            node: run_posted_with_id::<P, F, W, D>,
            slot: run_slot_with_id::<P, F>,
        };
        // SAFETY: 1 — both run an `F`.
        unsafe { self.enqueue(me, cpu, area, f, runs) }
    }

    /// Sends what `runs` takes out of a slot or a pool node and runs.
    ///
    /// # Safety
    /// 1. Both functions move an `F` out, free its place, and run it.
    #[inline]
    unsafe fn enqueue<F: Send + 'static>(
        &self,
        me: Option<CpuId>,
        cpu: CpuId,
        area: &Area<W, D>,
        f: F,
        runs: Runs,
    ) -> Result<(), Refused<F>> {
        const {
            assert!(
                pool::fits::<F>(),
                "a posted closure holds at most three words: own a `Csd` and use `post_csd`"
            );
        }
        if !P::POST_RINGS {
            // SAFETY: 1 — it fits; 1 of this function.
            return unsafe { self.enqueue_anyhow(me, cpu, area, f, runs) };
        }
        match self.lease_of_streaming(me, cpu, area) {
            // SAFETY: 1 — it fits; 1 of this function.
            Some(lease) => unsafe { self.post_to_streaming(lease, cpu, area, runs.slot, f) }
                .map_err(|(error, f)| Refused::new(error, f)),
            // SAFETY: as above.
            None => unsafe { self.enqueue_out_of_line(me, cpu, area, f, runs) },
        }
    }

    /// As [`Self::enqueue_anyhow`], out of line: what is inlined where a closure is posted stays small.
    ///
    /// # Safety
    /// As [`Self::enqueue`].
    #[inline(never)]
    unsafe fn enqueue_out_of_line<F: Send + 'static>(
        &self,
        me: Option<CpuId>,
        cpu: CpuId,
        area: &Area<W, D>,
        f: F,
        runs: Runs,
    ) -> Result<(), Refused<F>> {
        // SAFETY: 1 of this function.
        unsafe { self.enqueue_anyhow(me, cpu, area, f, runs) }
    }

    /// Sends by a ring, in whatever state its target is, or by the queue.
    ///
    /// # Safety
    /// As [`Self::enqueue`].
    #[inline]
    unsafe fn enqueue_anyhow<F: Send + 'static>(
        &self,
        me: Option<CpuId>,
        cpu: CpuId,
        area: &Area<W, D>,
        f: F,
        runs: Runs,
    ) -> Result<(), Refused<F>> {
        if area.bell.looks_closed() {
            return Err(Refused::new(self.refusal(cpu), f));
        }
        if let Some(lease) = self.lease(me, cpu, area) {
            // SAFETY: 1 — it fits; 1 of this function.
            return unsafe { self.post_by_ring::<F, F>(&lease, cpu, area, runs.slot, f) }
                .map_err(|(error, f)| Refused::new(error, f));
        }
        if me.is_some() && self.has_full_ring(cpu) {
            return Err(Refused::new(CallError::Full { cpu }, f));
        }
        let Some(slot) = area.pool.claim() else {
            return Err(Refused::new(CallError::Full { cpu }, f));
        };
        // SAFETY: the node was claimed: it is ours, and a closure of this type fits.
        slot.words
            .with_mut(|words| unsafe { words.cast::<F>().write(f) });
        // SAFETY: 1 — claimed: in no queue.
        unsafe { slot.node.set_run(runs.node) };
        let node = NonNull::from(slot);
        self.trace_queue::<F>(cpu, node.addr().get());
        // SAFETY: 1 — `run` is set, pool nodes live as long as the instance; 2 — claimed: ours.
        let pushed = unsafe { area.queues.posted.push(node.cast()) };
        if !self.announce(cpu, area, pushed) {
            // SAFETY: refused: the closure is still there and moves out once.
            let f = slot
                .words
                .with_mut(|words| unsafe { words.cast::<F>().read() });
            area.pool.free(node);
            return Err(Refused::new(self.refusal(cpu), f));
        }
        Ok(())
    }
}

/// Runs what was posted; a panic is reported, the CPU lives on. `request` names it in reports.
///
/// # Safety
/// 1. The context's platform is a `P`.
#[inline]
pub(crate) unsafe fn run_and_report<P: Platform, Name>(
    context: &Context,
    request: usize,
    f: impl FnOnce(),
) {
    // SAFETY: 1.
    let platform = unsafe { &*context.platform.cast::<P>() };
    if let Err(panic) = run_named::<P, Name, ()>(platform, context.cpu, request, f) {
        platform.report_panic(context.cpu, panic);
    }
}
