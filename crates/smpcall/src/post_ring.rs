//! The send side of the post ring.
//!
//! A source in task context that owns, or can take, its mailbox line of the target has the ring
//! beside it, and all that it posts goes there: then its order is the ring's. While the target
//! streams, a post is stores alone. Otherwise it ends with a ring of the doorbell.

use core::ptr::NonNull;

use crate::area::{Area, Local, MAILBOXES, POSTING};
use crate::bell;
use crate::cpu::CpuId;
use crate::error::CallError;
use crate::platform::Platform;
use crate::post::run_and_report;
use crate::queue::{Context, Node, NodeFn};
use crate::ring::{PostRing, Slot, SlotFn, run_node};
use crate::smp::{Smp, Waiter};
use crate::stall::Suspect;
use crate::sync::light_fence;

/// After so many posts without a pause, a polling target streams: leaving that state costs a fence
/// on every CPU, about what so many rings of the doorbell cost.
const POSTS_BEFORE_STREAMING: u32 = 64;

/// A ring that is this context's to fill.
pub(crate) struct Lease<'a> {
    ring: &'a PostRing,
    local: &'a Local,
    /// The mark of the call, if there is one, inside which this context posts.
    outer: u32,
}

impl Drop for Lease<'_> {
    #[inline]
    fn drop(&mut self) {
        self.local.set_mailing(self.outer);
    }
}

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// The ring by which `me` posts to `cpu`; `None`: by the posted queue.
    ///
    /// A handler's posts go by the queue: it is a source of its own. So does what interrupted a post by a
    /// ring in task context, which only a signal that is not the platform's can. A reporter that
    /// posts while its CPU waits for a call is task context like any other.
    #[inline]
    pub(crate) fn lease(
        &self,
        me: Option<CpuId>,
        cpu: CpuId,
        area: &Area<W, D>,
    ) -> Option<Lease<'_>> {
        let me = me?;
        let line = me.index() % MAILBOXES;
        let ring = self.platform.post_ring(cpu, line)?;
        let local = &self.own(me).local;
        if local.in_handler() {
            return None;
        }
        let outer = local.mailing();
        if outer == POSTING {
            return None;
        }
        let mailbox = &area.mail[line];
        // As in `begin_mail`, the mark comes before the look (E20).
        local.set_mailing(POSTING);
        if mailbox.is_owned_by(me.get()) || mailbox.try_own(me.get()) {
            return Some(Lease { ring, local, outer });
        }
        local.set_mailing(outer);
        self.count_miss(me, cpu, mailbox);
        None
    }

    /// As [`Self::lease`], if nothing stands in the way of a post that is stores alone: the target streams, room
    /// is known, nothing is traced. Inlined wherever a closure is posted: each instruction counts.
    #[inline(always)]
    pub(crate) fn lease_of_streaming(
        &self,
        me: Option<CpuId>,
        cpu: CpuId,
        area: &Area<W, D>,
    ) -> Option<Lease<'_>> {
        let me = me?;
        let line = me.index() % MAILBOXES;
        let ring = self.platform.post_ring(cpu, line)?;
        let local = &self.own(me).local;
        if area.bell.look() != bell::STREAMING
            || local.in_handler()
            || local.mailing() != 0
            || area.pool.looks_full()
            || self.platform.is_traced()
        {
            return None;
        }
        // As in `begin_mail`, the mark comes before the look (E20).
        local.set_mailing(POSTING);
        let outer = 0;
        let lease = Lease { ring, local, outer };
        (area.mail[line].is_owned_by(me.get()) && ring.has_streaming_room::<D>()).then_some(lease)
    }

    /// Posts by a ring that [`Self::lease_of_streaming`] gave.
    ///
    /// # Safety
    /// 1. A `T` fits into a slot, and `run` takes a `T`.
    #[inline(always)]
    pub(crate) unsafe fn post_to_streaming<T>(
        &self,
        lease: Lease<'_>,
        cpu: CpuId,
        area: &Area<W, D>,
        run: SlotFn,
        value: T,
    ) -> Result<(), (CallError, T)> {
        let ring = lease.ring;
        let slot = ring.next_slot();
        // SAFETY: 1 — the lease is ours and marked as in use; 2 — 1 of this function.
        unsafe { ring.publish(slot, run, value) };
        // The compiler must not look before it has published; the processor may (E43).
        light_fence();
        if area.bell.look() != bell::STREAMING {
            // SAFETY: 1 — published just now, with a `T`.
            return unsafe { self.ring_or_take_back(ring, slot, cpu, area) };
        }
        ring.accept_slot();
        Ok(())
    }

    /// Rings for a slot that was published; takes the post back if the target is offline.
    ///
    /// # Safety
    /// 1. The slot is the ring's, was published with a `T` and not accepted yet.
    #[inline(never)]
    unsafe fn ring_or_take_back<T>(
        &self,
        ring: &PostRing,
        slot: &Slot,
        cpu: CpuId,
        area: &Area<W, D>,
    ) -> Result<(), (CallError, T)> {
        if !self.ring(cpu, area) && ring.retract(slot) {
            self.trace_refuse(cpu);
            // SAFETY: 1 — taken back: it is still there, and ours.
            return Err((self.refusal(cpu), unsafe { slot.read() }));
        }
        ring.accept_slot();
        Ok(())
    }

    /// Posts a value that `run` takes; hands it back if the ring is full or the target offline.
    ///
    /// # Safety
    /// 1. A `T` fits into a slot, and `run` takes a `T`.
    #[inline]
    pub(crate) unsafe fn post_by_ring<T, Name>(
        &self,
        lease: &Lease<'_>,
        cpu: CpuId,
        area: &Area<W, D>,
        run: SlotFn,
        value: T,
    ) -> Result<(), (CallError, T)> {
        let ring = lease.ring;
        let slot = ring.vacant::<D>().filter(|_| !area.pool.looks_full());
        let Some(slot) = slot else {
            return Err((CallError::Full { cpu }, value));
        };
        self.trace_queue::<Name>(cpu, slot.request());
        // SAFETY: 1 — the lease is ours and marked as in use; 2 — 1 of this function.
        unsafe { ring.publish(slot, run, value) };
        // The compiler must not look before it has published; the processor may (E43).
        light_fence();
        if area.bell.look() != bell::STREAMING {
            // SAFETY: 1 — published just now, with a `T`.
            return unsafe { self.ring_or_take_back(ring, slot, cpu, area) };
        }
        ring.accept_slot();
        Ok(())
    }

    /// Queues a descriptor's node in the posted lane, behind what this context posted before, and
    /// rings. Answers whether it was accepted.
    ///
    /// # Safety
    /// 1. As [`Queue::push`](crate::queue::Queue::push), with this instance's context.
    pub(crate) unsafe fn post_node<Name>(
        &self,
        cpu: CpuId,
        area: &Area<W, D>,
        node: NonNull<Node>,
    ) -> bool {
        self.trace_queue::<Name>(cpu, node.addr().get());
        let Some(lease) = self.lease(self.platform.current_cpu(), cpu, area) else {
            // SAFETY: 1.
            let pushed = unsafe { area.queues.posted.push(node) };
            return self.announce(cpu, area, pushed);
        };
        let ring = lease.ring;
        let Some(slot) = ring.vacant::<D>() else {
            // SAFETY: 1 — the lease is ours and marked as in use; 2 — 1 of this function.
            let accepted = unsafe { ring.overflow(node) }.is_ok();
            if accepted {
                // A list that closes later is run by the CPU that leaves, as `announce` says.
                self.ring_unless_streaming(cpu, area);
            } else {
                self.trace_refuse(cpu);
            }
            return accepted;
        };
        // SAFETY: 1 — as above; 2 — an address fits, and `run_node` takes it.
        unsafe { ring.publish(slot, run_node, node) };
        if !self.ring_unless_streaming(cpu, area) && ring.retract(slot) {
            self.trace_refuse(cpu);
            return false;
        }
        ring.accept_slot();
        true
    }

    /// Rings for what is in a ring, unless the target streams; `false` when it turned out to be
    /// offline.
    #[inline(always)]
    fn ring_unless_streaming(&self, cpu: CpuId, area: &Area<W, D>) -> bool {
        // The compiler must not look before it has published; the processor may (E43).
        light_fence();
        area.bell.look() == bell::STREAMING || self.ring_for_slot(cpu, area)
    }

    /// The part of [`Self::ring_unless_streaming`] that is not inlined: a post to a CPU that streams is
    /// bound by its stores, and a call makes more of them.
    #[inline(never)]
    fn ring_for_slot(&self, cpu: CpuId, area: &Area<W, D>) -> bool {
        self.ring(cpu, area)
    }

    /// Is a ring of the target full? Then its lane is, for posts of other CPUs and handlers too.
    #[inline]
    pub(crate) fn has_full_ring(&self, cpu: CpuId) -> bool {
        self.rings(cpu).any(|ring| ring.is_full::<D>())
    }

    /// Waits until all that the rings of `cpu` carry now is taken.
    pub(crate) fn flush_rings(&self, waiter: Waiter, cpu: CpuId, area: &Area<W, D>) {
        for ring in self.rings(cpu) {
            let published = ring.published();
            if !ring.has_passed(published) {
                // Who posted may not have rung yet.
                self.ring(cpu, area);
                self.wait_for(waiter, Suspect::running(cpu, 0), || {
                    ring.has_passed(published)
                });
            }
        }
    }

    /// The rings of a CPU.
    #[inline]
    pub(crate) fn rings(&self, cpu: CpuId) -> impl Iterator<Item = &PostRing> {
        (0..MAILBOXES).filter_map(move |line| self.platform.post_ring(cpu, line))
    }

    /// Target: runs what the rings carry; answers whether anything.
    ///
    /// # Safety
    /// As [`Area::drain`].
    #[inline]
    pub(crate) unsafe fn serve_rings(&self, area: &Area<W, D>, context: &Context) -> bool {
        // SAFETY: 1 — our queue, our context.
        let run_queue = || unsafe { area.run_posted(context) };
        let mut any = false;
        for ring in self.rings(context.cpu) {
            if ring.looks_filled() {
                // SAFETY: 1 — our ring, our context.
                let served = unsafe { ring.serve(context, run_queue) };
                area.local.count_ring_posts(served);
                any = true;
            }
        }
        any
    }

    /// Target that has opened its doorbell: claims and runs what the rings carry.
    ///
    /// # Safety
    /// As [`Area::drain`].
    pub(crate) unsafe fn claim_rings(&self, area: &Area<W, D>, context: &Context) {
        // SAFETY: 1 — our queue, our context.
        let run_queue = || unsafe { area.run_posted(context) };
        for ring in self.rings(context.cpu) {
            // SAFETY: 1 — our ring, our context.
            unsafe { ring.claim_and_serve(context, run_queue) };
        }
    }

    /// Target that has closed its doorbell: as [`Self::claim_rings`], and nothing is accepted later.
    ///
    /// # Safety
    /// As [`Area::drain`].
    pub(crate) unsafe fn close_rings(&self, area: &Area<W, D>, context: &Context) {
        // SAFETY: 1 — our queue, our context.
        let run_queue = || unsafe { area.run_posted(context) };
        for ring in self.rings(context.cpu) {
            // SAFETY: 1 — our ring, our context.
            unsafe { ring.close(context, run_queue) };
        }
    }

    /// Is anything here that a drain would run? A hint for idle loops.
    #[inline]
    pub(crate) fn looks_pending(&self, me: CpuId) -> bool {
        self.own(me).looks_pending() || self.rings_look_filled(me)
    }

    /// Target, in its idle loop: is anything in a ring?
    #[inline]
    pub(crate) fn rings_look_filled(&self, me: CpuId) -> bool {
        self.rings(me).any(PostRing::looks_filled)
    }

    /// Closes the doorbell of a leaving CPU.
    pub(crate) fn close_bell(&self, area: &Area<W, D>) {
        let streams = self.streams(area);
        area.local.set_armed(false);
        area.bell.close();
        if streams {
            // Only an idle loop that was left without its end streams here (E43).
            self.platform.fence_all();
        }
    }

    /// Does this CPU stream?
    #[inline]
    pub(crate) fn streams(&self, area: &Area<W, D>) -> bool {
        self.platform.can_fence_all() && area.local.resting() == bell::STREAMING
    }

    /// Target that polls and has just drained: begins to stream if many posts came.
    #[inline]
    pub(crate) fn stream_if_busy(&self, area: &Area<W, D>) {
        if self.platform.can_fence_all()
            && area.local.resting() == bell::POLLING
            && area.local.ring_posts() >= POSTS_BEFORE_STREAMING
        {
            area.local.set_streaming();
            area.bell.start_streaming();
        }
    }
}

/// How a posted closure is taken out of its place and run.
#[derive(Clone, Copy)]
pub(crate) struct Runs {
    pub(crate) node: NodeFn,
    pub(crate) slot: SlotFn,
}

/// Runs a posted closure that came in a slot.
///
/// # Safety
/// As [`SlotFn`].
pub(crate) unsafe fn run_slot<P: Platform, F: FnOnce()>(
    context: &Context,
    ring: &PostRing,
    slot: &Slot,
) {
    // SAFETY: 1 — published with this function, so it holds an `F`.
    let f = unsafe { ring.take::<F>(slot) };
    // SAFETY: 2 of `SlotFn`.
    unsafe { run_and_report::<P, F>(context, slot.request(), f) };
}

/// Runs a posted closure that came in a slot and wants to know where it runs.
///
/// # Safety
/// As [`SlotFn`].
pub(crate) unsafe fn run_slot_with_id<P: Platform, F: FnOnce(CpuId)>(
    context: &Context,
    ring: &PostRing,
    slot: &Slot,
) {
    // SAFETY: 1 — published with this function, so it holds an `F`.
    let f = unsafe { ring.take::<F>(slot) };
    // SAFETY: 2 of `SlotFn`.
    unsafe { run_and_report::<P, F>(context, slot.request(), || f(context.cpu)) };
}
