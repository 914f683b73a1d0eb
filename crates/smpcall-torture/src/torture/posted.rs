//! The operations that do not wait, and those that wait for what they posted.

use core::pin::{Pin, pin};
use core::sync::atomic::Ordering;

use smpcall::{CallError, CpuId, CpuMask, Csd, TicketSlot};

use super::letter::{Letter, post_onward, run_again};
use super::op::Op;
use super::room::Fault;
use super::work::Doing;
use crate::lab::Lab;

impl<L: Lab<W, D>, const W: usize, const D: usize> Doing<'_, '_, L, W, D> {
    /// A letter to be posted, with the next number of this source.
    fn letter(&self, target: Option<CpuId>) -> Letter<L, W, D> {
        // ORDERING: Relaxed — this source's own; its handlers take no numbers.
        let number = self.worker.number.fetch_add(1, Ordering::Relaxed) + 1;
        Letter::new(self.room(), self.source, target, number)
    }

    pub(super) fn post(&self, post: impl FnOnce(Letter<L, W, D>) -> Result<(), CallError>) -> u64 {
        let letter = self.letter(Some(self.turn.target));
        self.counted(|| post(letter))
    }

    pub(super) fn any_post(&self) -> u64 {
        let some = self.some();
        let letter = self.letter(None);
        self.counted(|| {
            let any = self.smp().post_any(&some, move || letter.arrive());
            any.map_err(|refused| refused.error)
        })
    }

    pub(super) fn posted_set(&self) -> u64 {
        let some = self.some();
        let letter = self.letter(None);
        let run = move |_| letter.arrive();
        // More than it can be, for it must not be behind what ran.
        let most = CpuMask::<W>::CAPACITY as u64;
        // ORDERING: Relaxed — before the post, which publishes it.
        self.worker.accepted.fetch_add(most, Ordering::Relaxed);
        let set = match self.turn.op {
            Op::ManyPost => self.smp().post_many(&some, run),
            Op::CondPost => self.smp().post_each_cond(|cpu| some.contains(cpu), run),
            _ => self.smp().post_each(run),
        };
        let (posted, full) = match set {
            Ok(posted) => (posted, CpuMask::EMPTY),
            Err(error) => (error.posted, error.full),
        };
        self.worker
            .accepted
            .fetch_sub(most - posted.len() as u64, Ordering::Relaxed);
        full.len() as u64
    }

    /// Its end waits until the target has taken it.
    pub(super) fn csd_post(&self) -> u64 {
        let target = self.turn.target;
        // Its two posts have one number, so it has no place in the order.
        let letter = Letter::<L, W, D>::new(self.room(), self.source, Some(target), 0);
        let csd = pin!(Csd::new(move || letter.arrive()));
        let first = self.counted(|| self.smp().post_csd(target, csd.as_ref()));
        first + self.counted(|| self.smp().post_csd(target, csd.as_ref()))
    }

    /// Posts a descriptor whose function posts it again, and waits until it has had enough.
    pub(super) fn csd_again(&self) -> u64 {
        let (worker, room) = (self.worker, self.room());
        let letter = Letter::<L, W, D>::new(room, self.source, None, 0);
        let csd = pin!(Csd::new(move || run_again(
            letter,
            room.worker(letter.source())
        )));
        let hops = 1 + self.turn.key as u32 % 4;
        // ORDERING: Relaxed — the post publishes them.
        worker.again_left.store(hops, Ordering::Relaxed);
        worker.again.arm(self.smp(), csd.as_ref());
        let refused = self.counted(|| self.smp().post_csd(self.turn.target, csd.as_ref()));
        if refused == 0 {
            // ORDERING: Acquire — the last run is over and posts it no more.
            let ended = || worker.again_left.load(Ordering::Acquire) == 0;
            self.wait_for(ended);
        }
        refused
    }

    /// A function that is told something and answers, without a waited call.
    pub(super) fn rpc(&self) -> u64 {
        let (worker, room, target) = (self.worker, self.room(), self.turn.target);
        let [input, output, ran] = &worker.rpc;
        // ORDERING: Relaxed — the post must order it, which is what is checked.
        input.store(self.turn.key, Ordering::Relaxed);
        output.store(0, Ordering::Relaxed);
        ran.store(0, Ordering::Relaxed);
        let key = self.turn.key;
        let letter = Letter::<L, W, D>::new(room, self.source, Some(target), 0);
        // Three words: the letter's two, which say whose RPC it is, and the key.
        let refused = self.counted(|| {
            let post = self.smp().post(target, move || {
                let [input, output, ran] = &letter.room.worker(letter.source()).rpc;
                letter
                    .room
                    .check(input.load(Ordering::Relaxed) == key, Fault::MemoryIn);
                output.store(!key, Ordering::Relaxed);
                letter.arrive();
                // ORDERING: Release — what it wrote is visible to the caller.
                ran.store(1, Ordering::Release);
            });
            post.map_err(|refused| refused.error)
        });
        if refused == 0 {
            // ORDERING: Acquire — pairs with the Release above.
            self.wait_for(|| ran.load(Ordering::Acquire) == 1);
            room.check(output.load(Ordering::Relaxed) == !key, Fault::MemoryOut);
        }
        refused
    }

    /// Two tasks in the target's ordinary context, in their order; this CPU runs its own tasks while it
    /// waits.
    pub(super) fn task_rpc(&self) -> u64 {
        let room = self.room();
        // The runner runs no tasks while it waits for this CPU to leave, which would wait for it.
        let is_runner = Some(self.turn.target) == self.runner.me;
        let own = self.me().filter(|_| is_runner);
        let target = own.unwrap_or(self.turn.target);
        let [_, _, ran] = &self.worker.rpc;
        // ORDERING: Relaxed — the post publishes it.
        ran.store(0, Ordering::Relaxed);
        let letter = Letter::<L, W, D>::new(room, self.source, Some(target), 0);
        let csds = [1, 2].map(|place| Csd::new(move || letter.arrive_as_task(place)));
        let csds = pin!(csds);
        let mut accepted = 0;
        for csd in csds.as_ref().get_ref() {
            // SAFETY: an element of a pinned array is pinned.
            let csd = unsafe { Pin::new_unchecked(csd) };
            accepted += 1 - self.refused(self.smp().post_task(target, csd));
        }
        // ORDERING: Acquire — the tasks are over.
        self.wait_for(|| ran.load(Ordering::Acquire) == accepted);
        2 - accepted
    }

    /// A post whose function posts onward, from the target's handler context.
    pub(super) fn nested_post(&self) -> u64 {
        let (room, target) = (self.room(), self.turn.target);
        let letter = Letter::<L, W, D>::new(room, self.source, Some(target), 0);
        let next = CpuId::new((self.turn.key % u64::from(self.smp().nr_cpu_ids())) as u32);
        self.counted(|| {
            let post = self.smp().post(target, move || {
                // A refusal is the target's, not the source's.
                let _ = post_onward(letter, next, |_| ());
                letter.arrive();
            });
            post.map_err(|refused| refused.error)
        })
    }

    /// A post with a ticket: redeemed, or one time in four dropped, and then its slot's end waits.
    pub(super) fn ticket(&self) -> u64 {
        let (target, key) = (self.turn.target, self.turn.key);
        let letter = self.letter(Some(target));
        let slot = pin!(TicketSlot::<L::P, u64>::new());
        let mut ticket = None;
        let refused = self.counted(|| {
            let submitted = self.smp().submit(target, slot.as_ref(), move || {
                letter.arrive();
                !key
            });
            ticket = Some(submitted.map_err(|refused| refused.error)?);
            Ok(())
        });
        if let Some(ticket) = ticket.filter(|_| !key.is_multiple_of(8)) {
            let result = self.smp().redeem(ticket);
            self.room()
                .check(result.is_ok_and(|result| result == !key), Fault::MemoryOut);
        }
        refused
    }
}
