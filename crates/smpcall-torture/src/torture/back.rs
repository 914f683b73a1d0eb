//! The operations in which a CPU is called while it does nothing to be called: it computes, it has its
//! interrupts off, or it sleeps as a thread that has just become a CPU.
//!
//! A CPU asks another one to call it back, and then computes without a look for calls until that call
//! comes: nothing but an interrupt brings it. A thread that is no CPU makes another CPU compute, and calls
//! it in the middle. A thread that attaches asks to be called back and sleeps on its descriptor.
//!
//! ```text
//!   this CPU ──post──▶ peer's handler ──post──▶ this CPU, in the middle of a loop: `heard`
//! ```

use core::pin::pin;
use core::sync::atomic::Ordering;

use smpcall::{CpuId, CpuMask, Csd, Platform};

use super::MS;
use super::letter::{Letter, Source, post_onward};
use super::room::{Fault, Worker};
use super::work::Doing;
use crate::lab::{Attached, Attachment, Lab};

/// Operations of a thread while it is a CPU.
const TURNS_AS_CPU: u64 = 64;

impl<L: Lab<W, D>, const W: usize, const D: usize> Doing<'_, '_, L, W, D> {
    pub(super) fn preempt(&self) -> u64 {
        match self.me() {
            Some(me) => self.be_interrupted(me),
            None => self.interrupt(),
        }
    }

    /// Asks for a call back and computes until it comes; every second time with interrupts off at first.
    fn be_interrupted(&self, me: CpuId) -> u64 {
        let guard = (self.turn.key & 2 != 0).then(|| self.smp().irqs_off());
        let Some(asked) = self.ask_back(me) else {
            return 1;
        };
        if let Some(guard) = guard {
            self.burn_masked();
            // A refusal is noted by the peer; only the call itself would have run here.
            // ORDERING: Relaxed — it runs on this CPU.
            let came = self.worker.heard.load(Ordering::Relaxed) == 2 * asked;
            self.room().check(!came, Fault::WrongCpu);
            drop(guard);
        }
        let heard = || self.has_heard(asked);
        if !self.runner.wait_without_looking(heard) {
            self.give_up();
        }
        0
    }

    /// A time with interrupts off, in which no function may run here.
    pub(super) fn burn_masked(&self) {
        // ORDERING: Relaxed, both — read by functions on this CPU alone.
        self.worker.masked.store(1, Ordering::Relaxed);
        self.runner.burn(1_000 * (self.turn.key % 64));
        self.worker.masked.store(0, Ordering::Relaxed);
    }

    /// Posts to another CPU a function that posts one back; `None` if it was refused. Else the number
    /// that [`Self::has_heard`] wants.
    fn ask_back(&self, me: CpuId) -> Option<u64> {
        let others = self.smp().online_cpus().and_not(&CpuMask::of(me));
        let n = (self.turn.key >> 8) % (others.len() as u64).max(1);
        let peer = others.iter().nth(n as usize)?;
        let letter = Letter::<L, W, D>::new(self.room(), Source::task(me), Some(peer), 0);
        // ORDERING: Relaxed — this CPU's task context alone counts.
        let number = 1 + self.worker.asked.fetch_add(1, Ordering::Relaxed);
        let refused = self.counted(|| {
            let post = self.smp().post(peer, move || call_back(letter, number));
            post.map_err(|refused| refused.error)
        });
        (refused == 0).then_some(number)
    }

    /// Has the call back come, or been refused?
    fn has_heard(&self, number: u64) -> bool {
        // ORDERING: Acquire — what the function did is visible; pairs with `hear`.
        self.worker.heard.load(Ordering::Acquire) >= 2 * number
    }

    /// Not a CPU: makes one compute without a look for calls, and calls it.
    fn interrupt(&self) -> u64 {
        // The runner may be waiting for a CPU to leave, and runs no tasks then.
        let target = self.turn.target;
        if Some(target) == self.runner.me {
            return 1;
        }
        let letter = Letter::<L, W, D>::new(self.room(), self.source, Some(target), 0);
        let busy = pin!(Csd::new(move || letter.compute()));
        let words @ [begun, enough, ended] = &self.worker.rpc;
        // ORDERING: Relaxed — the post publishes them.
        words.iter().for_each(|it| it.store(0, Ordering::Relaxed));
        let mut refused = self.refused(self.smp().post_task(target, busy.as_ref()));
        if refused == 0 {
            // ORDERING: Acquire, both — what the task did until then is visible.
            self.wait_for(|| begun.load(Ordering::Acquire) == 1);
            refused = self.waited_single(target);
            enough.store(1, Ordering::Relaxed);
            self.wait_for(|| ended.load(Ordering::Acquire) == 1);
        }
        refused
    }

    /// Becomes a CPU that is down, for a while.
    pub(super) fn attach(&self) -> u64 {
        let down = self
            .runner
            .online
            .and_not(&self.smp().online_cpus())
            .first();
        let Some(cpu) = down else { return 1 };
        let attached = self
            .runner
            .lab
            .attach(cpu, &mut |here| self.be_cpu(cpu, here));
        self.room()
            .check(attached != Attachment::Failed, Fault::Hotplug);
        self.room().check(self.me().is_none(), Fault::WrongCpu);
        u64::from(attached != Attachment::Was)
    }

    /// What a thread does as a CPU: it is woken by a call, makes some, and takes those that come.
    fn be_cpu(&self, cpu: CpuId, here: &dyn Attached) {
        self.room().check(self.me() == Some(cpu), Fault::WrongCpu);
        let source = Source::task(cpu);
        let as_cpu = Doing {
            source,
            worker: self.room().worker(source),
            ..*self
        };
        if !as_cpu.sleep_until_called(cpu, here) {
            return;
        }
        let mut left = TURNS_AS_CPU;
        // ORDERING: Relaxed — only says when to stop.
        while left > 0 && self.room().stop.load(Ordering::Relaxed) == 0 && here.serve() {
            left -= 1;
            self.runner.one_operation(source);
        }
    }

    /// Asks for a call back and sleeps until it comes; `false` if the CPU was taken down meanwhile.
    fn sleep_until_called(&self, me: CpuId, here: &dyn Attached) -> bool {
        let Some(asked) = self.ask_back(me) else {
            return here.serve();
        };
        let patience = self.runner.torture.patience_ms * MS;
        let start = self.runner.now();
        while !self.has_heard(asked) {
            here.sleep(patience);
            if !here.serve() {
                return false;
            }
            let late = self.runner.now().saturating_sub(start) > patience;
            // It sleeps until it is called: nobody else had to wake it.
            self.room()
                .check(!late || !self.has_heard(asked), Fault::LostWakeup);
            if late {
                self.wait_for(|| self.has_heard(asked));
            }
        }
        true
    }
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Letter<L, W, D> {
    /// A task: computes without a look for calls until its source has had enough.
    fn compute(self) {
        // SAFETY: 1 — the room was taken with an `L` by the run that posted this.
        let lab = unsafe { self.room.lab::<L>() };
        let right = lab.is_some_and(|lab| self.is_task_context(lab));
        self.room.check(right, Fault::WrongCpu);
        let [begun, enough, ended] = &self.room.worker(self.source()).rpc;
        // ORDERING: Release — pairs with the source's looks, here and below.
        begun.store(1, Ordering::Release);
        // ORDERING: Relaxed — only says when to stop.
        while enough.load(Ordering::Relaxed) == 0 {
            (0..100).for_each(|_| core::hint::spin_loop());
            lab.into_iter()
                .for_each(|lab| lab.smp().platform().relax(u32::MAX));
        }
        ended.store(1, Ordering::Release);
    }
}

/// In the peer's handler: calls the CPU back that posted this.
fn call_back<L: Lab<W, D>, const W: usize, const D: usize>(letter: Letter<L, W, D>, number: u64) {
    letter.arrive();
    let Ok(source) = letter.source().place() else {
        return;
    };
    let hear = move |worker: &'static Worker| {
        // ORDERING: Release — the function is over; pairs with `has_heard`.
        worker.heard.fetch_max(2 * number, Ordering::Release);
    };
    if !post_onward(letter, source, hear) {
        let worker = letter.room.worker(letter.source());
        // ORDERING: Release — as above.
        worker.heard.fetch_max(2 * number + 1, Ordering::Release);
    }
}
