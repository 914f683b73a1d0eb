//! What a posted function carries, and what it checks when it arrives.
//!
//! Two words: the room, and one that says who posted it, for whom, and as which of its posts.

use core::sync::atomic::Ordering;

use smpcall::{CpuId, Platform};

use super::room::{Fault, Room, Worker};
use crate::lab::Lab;

/// The source number of the foreign thread.
pub(super) const FOREIGN: u32 = (1 << 15) - 1;

/// What a posted function knows of its post.
pub(super) struct Letter<L, const W: usize, const D: usize> {
    pub(super) room: &'static Room<W>,
    word: u64,
    _lab: core::marker::PhantomData<fn() -> L>,
}

impl<L, const W: usize, const D: usize> Clone for Letter<L, W, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<L, const W: usize, const D: usize> Copy for Letter<L, W, D> {}

/// Bits of a letter's word: the source, the target (or [`ANY_TARGET`]), and the post's number.
const NUMBER_BITS: u32 = 34;
const ANY_TARGET: u32 = (1 << 15) - 1;

impl<L: Lab<W, D>, const W: usize, const D: usize> Letter<L, W, D> {
    pub(super) fn new(
        room: &'static Room<W>,
        source: u32,
        target: Option<CpuId>,
        number: u64,
    ) -> Self {
        let target = target.map_or(ANY_TARGET, CpuId::get);
        let word = u64::from(source) << 49 | u64::from(target) << NUMBER_BITS;
        Self {
            room,
            word: word | (number & ((1 << NUMBER_BITS) - 1)),
            _lab: core::marker::PhantomData,
        }
    }

    /// Who posted it.
    pub(super) fn source(self) -> Option<CpuId> {
        let source = (self.word >> 49) as u32;
        (source != FOREIGN).then(|| CpuId::new(source))
    }

    /// The posted function: checks that it is here, now and for the first time.
    pub(super) fn arrive(self) {
        // SAFETY: 1 — the room was taken with an `L` by the run that posted this.
        let Some(lab) = (unsafe { self.room.lab::<L>() }) else {
            return;
        };
        let here = lab.smp().current_cpu();
        let worker = self.room.worker(here);
        let target = (self.word >> NUMBER_BITS) as u32 & ANY_TARGET;
        let right = here.is_some_and(|here| target == ANY_TARGET || here.get() == target);
        self.room.check(
            right && !lab.smp().platform().irqs_enabled(),
            Fault::WrongCpu,
        );
        let number = self.word & ((1 << NUMBER_BITS) - 1);
        // Number 0 is for posts that share no order with others.
        if number != 0 {
            self.room
                .check(worker.see((self.word >> 49) as u32, number), Fault::Order);
        }
        // ORDERING: Release — what ran here is over; pairs with `Room::posts`.
        worker.ran.fetch_add(1, Ordering::Release);
    }
}

/// The function of a descriptor that posts itself, on behalf of its source.
pub(super) fn run_again<L: Lab<W, D>, const W: usize, const D: usize>(
    letter: Letter<L, W, D>,
    source: &'static Worker,
) {
    // ORDERING: Relaxed — one thread of control: each run is posted by the one before.
    let left = source.again_left.load(Ordering::Relaxed);
    // SAFETY: 1 — the room was taken with an `L` by this run.
    let lab = unsafe { letter.room.lab::<L>() };
    if let Some(lab) = lab.filter(|_| left > 1) {
        let smp = lab.smp();
        let here = smp.current_cpu();
        let next = smp.online_cpus().iter().find(|&cpu| Some(cpu) > here);
        let worker = letter.room.worker(here);
        // ORDERING: Relaxed — before the post, which publishes them.
        source.again_left.store(left - 1, Ordering::Relaxed);
        worker.accepted.fetch_add(1, Ordering::Relaxed);
        // SAFETY: 1 — armed with this instance by its source; 2 — the source keeps it until
        // `again_left` is 0, which the last run stores.
        let posted = next.is_some_and(|next| unsafe { source.again.post(smp, next) }.is_ok());
        letter.arrive();
        if !posted {
            worker.accepted.fetch_sub(1, Ordering::Relaxed);
            // ORDERING: Release — the last run is over.
            source.again_left.store(0, Ordering::Release);
        }
        return;
    }
    letter.arrive();
    // ORDERING: Release — the last run is over.
    source.again_left.store(0, Ordering::Release);
}
