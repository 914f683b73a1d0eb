//! How a waited broadcast goes out and comes back.
//!
//! One remote target is a call; more get the source's mailbox lines there, one cache line each way and
//! target, or the source's broadcast record where another source owns the line. A thread that is no CPU
//! has neither (`batch`). IPIs go out by multicast; then comes the local run, then the wait. The local run
//! may wait for the remote ones, so a target that was not rung is looked at again before it (E8).

mod target;

use core::mem::ManuallyDrop;
use core::ptr;

use crate::area::{MAILBOXES, MAILING_TO_ALL};
use crate::bell::Ring;
use crate::broadcast::BroadcastFn;
use crate::cpu::{CpuId, CpuMask, Crowd};
use crate::mailbox::{MailFn, Mailbox, Payload};
use crate::panics::PanicSlot;
use crate::platform::Platform;
use crate::queue::Context;
use crate::smp::{Smp, Waiter};
use crate::stall::{Suspect, run_named};

use target::{run_mailed, run_requested};

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Runs the function on the targets and, if it is to run here too, `run_local`, and waits. Takes
    /// those out of the targets that turn out to be offline. `run_local` must not panic.
    #[inline]
    pub(crate) fn fan_out<F>(
        &self,
        waiter: Waiter,
        targets: &mut CpuMask<W>,
        shared: &mut Shared<F, P>,
        run_local: Option<impl FnOnce(&F, &PanicSlot<P>)>,
    ) where
        F: Fn(CpuId) + Sync,
    {
        match (targets.crowd(self.nr_words()), waiter.me) {
            (Crowd::Nobody, _) => shared.run(run_local),
            (Crowd::One(only), _) => {
                if !self.fan_out_to_one(waiter, only, shared, run_local) {
                    targets.remove(only);
                }
            }
            (Crowd::Several, Some(me)) => self.broadcast(waiter, me, targets, shared, run_local),
            (Crowd::Several, None) => {
                *targets = self.queue_in_batches(waiter, targets, shared, run_local);
            }
        }
    }

    /// One remote CPU, with the local run beside it. `false`: it was offline.
    #[inline]
    fn fan_out_to_one<F>(
        &self,
        waiter: Waiter,
        cpu: CpuId,
        shared: &mut Shared<F, P>,
        run_local: Option<impl FnOnce(&F, &PanicSlot<P>)>,
    ) -> bool
    where
        F: Fn(CpuId) + Sync,
    {
        if let Some(me) = waiter.me
            && Payload::fits::<InLine<F, P>>()
        {
            let mailbox = &self.own(cpu).mail[me.index() % MAILBOXES];
            if self.begin_mail(me, cpu, mailbox) {
                return self.fan_out_in_line(waiter, me, cpu, mailbox, shared, run_local);
            }
        }
        let mut run_local = run_local;
        let (f, shared) = (&shared.f, &*shared);
        let meanwhile = |silent| {
            if silent && run_local.is_some() {
                self.look_again(cpu);
            }
            shared.run(run_local.take());
        };
        let ran = self.call_remote(waiter, cpu, move || f(cpu), meanwhile);
        // A refused call has not run it.
        shared.run(run_local);
        if let Ok(Err(panic)) = ran {
            shared.panics.put(&self.platform, cpu, panic);
            return true;
        }
        ran.is_ok()
    }

    /// One remote CPU by our mailbox line there, which is marked as in use. The function itself
    /// travels in the line, so that the target need not fetch it from this stack; both CPUs
    /// use it there.
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one obligation covers the accesses of the block"
    )]
    fn fan_out_in_line<F>(
        &self,
        waiter: Waiter,
        me: CpuId,
        cpu: CpuId,
        mailbox: &Mailbox,
        shared: &mut Shared<F, P>,
        run_local: Option<impl FnOnce(&F, &PanicSlot<P>)>,
    ) -> bool
    where
        F: Fn(CpuId) + Sync,
    {
        let area = self.own(cpu);
        let run = run_in_line::<P, F>;
        let panics = ptr::from_ref(&shared.panics);
        let home = &raw mut shared.f;
        let seen = area.bell.look();
        let mut line = ptr::null_mut::<InLine<F, P>>();
        self.trace_queue::<F>(cpu, mailbox.request());
        // SAFETY: 1 — ours and marked; 2 — `run` expects an `InLine`, which stays until we waited.
        unsafe {
            mailbox.publish(run, |payload| {
                line = payload.cast();
                // The function moves out of `shared` and back below; nothing in between unwinds.
                let f = ManuallyDrop::new(home.read());
                line.write(InLine { f, panics });
            });
        }
        let silent = self.looks_by_itself(seen);
        // A local run takes as long as the first turn of a wait.
        let turns = u32::from(run_local.is_some());
        let refused =
            !silent && !self.act(cpu, area, area.bell.ring_from(seen)) && mailbox.retract();
        if let Some(run_local) = run_local {
            if silent {
                self.look_again(cpu);
            }
            // SAFETY: the line holds the function until we move it back, and nobody writes it: the
            // target too only borrows it.
            run_local(unsafe { &(*line).f }, &shared.panics);
        }
        let refused = refused || self.wait_for_mail(waiter, cpu, area, mailbox, turns, || silent);
        // SAFETY: done or retracted: the function is ours alone again and moves back to its home.
        mailbox.payload(|_| unsafe { home.write(ManuallyDrop::take(&mut (*line).f)) });
        self.own(me).local.set_mailing(0);
        if refused {
            self.trace_refuse(cpu);
        }
        !refused
    }

    /// Several remote CPUs, from a CPU: its mailbox lines there, and its broadcast record for the
    /// targets whose line another source owns.
    fn broadcast<F>(
        &self,
        waiter: Waiter,
        me: CpuId,
        targets: &mut CpuMask<W>,
        shared: &Shared<F, P>,
        run_local: Option<impl FnOnce(&F, &PanicSlot<P>)>,
    ) where
        F: Fn(CpuId) + Sync,
    {
        let local = &self.own(me).local;
        if local.mailing() != 0 {
            // We interrupted a call of this CPU, whose lines and record are in use.
            *targets = self.queue_in_batches(waiter, targets, shared, run_local);
            return;
        }
        local.set_mailing(MAILING_TO_ALL);
        let data: *const () = ptr::from_ref(shared).cast();
        let mut out = FanOut {
            ran: targets,
            kicks: CpuMask::EMPTY,
            kicked: 0,
            unrung: CpuMask::EMPTY,
            any_rest: false,
        };
        let words = self.nr_words().min(W);
        for w in 0..words {
            for cpu in out.ran.in_word(w) {
                self.trace_queue::<F>(cpu, self.own(cpu).mail[me.index() % MAILBOXES].request());
                self.mail(me, cpu, run_mailed::<P, F>, data, &mut out);
            }
        }
        if out.any_rest {
            self.request_rest(me, run_requested::<P, F>, data, &mut out);
        }
        self.kick(&out);
        if run_local.is_some() {
            for cpu in &out.unrung {
                self.look_again(cpu);
            }
        }
        // A local run takes as long as the first turn of a wait.
        let turns = u32::from(run_local.is_some());
        shared.run(run_local);
        for w in 0..words {
            for cpu in out.ran.in_word(w) {
                let area = self.own(cpu);
                let mailbox = &area.mail[me.index() % MAILBOXES];
                let is_unrung = || out.unrung.contains(cpu);
                // The line of a target that was requested instead is not ours.
                if mailbox.is_owned_by(me.get())
                    && self.wait_for_mail(waiter, cpu, area, mailbox, turns, is_unrung)
                {
                    self.trace_refuse(cpu);
                    out.ran.remove(cpu);
                }
            }
        }
        if out.any_rest {
            self.wait_for_rest(waiter, me, data.addr());
        }
        local.set_mailing(0);
    }

    /// Publishes a broadcast in our mailbox line of one target, if it is or becomes ours.
    #[inline]
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one obligation covers the accesses of the block"
    )]
    fn mail(&self, me: CpuId, cpu: CpuId, run: MailFn, data: *const (), out: &mut FanOut<'_, W>) {
        let area = self.own(cpu);
        let mailbox = &area.mail[me.index() % MAILBOXES];
        if !mailbox.is_owned_by(me.get()) && !mailbox.try_own(me.get()) {
            out.any_rest = true;
            return;
        }
        // A target that is offline after all is found by the ring, and the call taken back.
        let seen = area.bell.look();
        // SAFETY: 1 — ours, idle after our last wait, and marked as in use; 2 — the data's address
        // is what `run` expects, and `broadcast` waits before the data goes.
        unsafe { mailbox.publish(run, |payload| payload.cast::<*const ()>().write(data)) };
        if self.looks_by_itself(seen) {
            out.unrung.insert(cpu);
            return;
        }
        match area.bell.ring_from(seen) {
            Ring::Kick => out.kick(cpu),
            Ring::Closed if mailbox.retract() => {
                self.trace_refuse(cpu);
                out.ran.remove(cpu);
            }
            other => {
                self.act(cpu, area, other);
            }
        }
    }

    /// Requests a broadcast by our record from the targets whose line is not ours; takes those out
    /// that are offline.
    #[cold]
    fn request_rest(&self, me: CpuId, run: BroadcastFn, data: *const (), out: &mut FanOut<'_, W>) {
        let is_rest =
            |cpu: &CpuId| !self.own(*cpu).mail[me.index() % MAILBOXES].is_owned_by(me.get());
        let rest: CpuMask<W> = out.ran.iter().filter(is_rest).collect();
        let record = &self.own(me).broadcast;
        // SAFETY: 1 — we are this CPU's one broadcaster, marked, and the last one was waited for;
        // 2 — `broadcast` waits before the data goes.
        unsafe { record.prepare(run, data, &rest) };
        for cpu in &rest {
            let area = self.own(cpu);
            area.requests.request(me);
            match area.bell.ring() {
                Ring::Kick => out.kick(cpu),
                Ring::Closed if area.requests.retract(me) => {
                    self.trace_refuse(cpu);
                    record.finish(cpu);
                    out.ran.remove(cpu);
                }
                other => {
                    self.act(cpu, area, other);
                }
            }
        }
    }

    /// Waits until our record's targets have finished.
    #[cold]
    fn wait_for_rest(&self, waiter: Waiter, me: CpuId, request: usize) {
        let record = &self.own(me).broadcast;
        while !record.is_done() {
            if let Some(cpu) = record.laggards().first() {
                let suspect = Suspect::running(cpu, request);
                self.wait_for(waiter, suspect, || !record.laggards().contains(cpu));
            }
        }
    }

    /// Sends the IPIs of a broadcast: one by one, or by multicast.
    #[inline]
    fn kick(&self, out: &FanOut<'_, W>) {
        self.trace_send_mask(&out.kicks);
        if out.kicked > 1 {
            self.platform.send_ipi_mask(&out.kicks, out.kicked);
        } else if out.kicked == 1 {
            self.kick_only(&out.kicks);
        }
    }

    /// The one IPI of a broadcast whose other targets poll, or were rung by somebody else.
    #[cold]
    fn kick_only(&self, kicks: &CpuMask<W>) {
        if let Some(only) = kicks.first() {
            self.platform.send_ipi(only);
        }
    }

    /// Before a local run: rings a target that was not rung because it looks by itself, unless it polls
    /// (E8). One that left is found when it is waited for.
    #[inline]
    fn look_again(&self, cpu: CpuId) {
        let area = self.own(cpu);
        self.act(cpu, area, area.bell.ring_unless_polling());
    }
}

/// What the CPUs of a broadcast share, on the caller's stack.
pub(crate) struct Shared<F, P: Platform> {
    /// The function.
    pub(crate) f: F,
    /// Where its panics go.
    pub(crate) panics: PanicSlot<P>,
}

impl<F, P: Platform> Shared<F, P> {
    /// The local run, if there is one.
    #[inline]
    pub(crate) fn run(&self, run_local: Option<impl FnOnce(&F, &PanicSlot<P>)>) {
        if let Some(run_local) = run_local {
            run_local(&self.f, &self.panics);
        }
    }
}

/// What a mailbox line carries of a broadcast to one CPU.
#[repr(C)]
struct InLine<F, P: Platform> {
    f: ManuallyDrop<F>,
    panics: *const PanicSlot<P>,
}

/// Where a broadcast goes.
struct FanOut<'a, const W: usize> {
    /// The targets, without those that turn out to be offline.
    ran: &'a mut CpuMask<W>,
    /// Those to be interrupted.
    kicks: CpuMask<W>,
    /// How many those are.
    kicked: usize,
    /// Those that were not rung: they seemed to poll.
    unrung: CpuMask<W>,
    /// Is the line of some target another source's?
    any_rest: bool,
}

impl<const W: usize> FanOut<'_, W> {
    /// Notes a target to be interrupted.
    #[inline]
    fn kick(&mut self, cpu: CpuId) {
        self.kicks.insert(cpu);
        self.kicked += 1;
    }
}

/// Runs a broadcast whose function is in the line.
///
/// # Safety
/// As [`MailFn`].
unsafe fn run_in_line<P: Platform, F: Fn(CpuId) + Sync>(context: &Context, payload: *mut Payload) {
    // SAFETY: 1 of `MailFn` — published with this function; the source too only borrows it now.
    let line = unsafe { &*payload.cast::<InLine<F, P>>() };
    // SAFETY: 2 of `MailFn` — the context's platform.
    let platform = unsafe { &*context.platform.cast::<P>() };
    let run = || (line.f)(context.cpu);
    if let Err(panic) = run_named::<P, F, ()>(platform, context.cpu, payload.addr(), run) {
        // SAFETY: the slot is on the source's stack, where it waits for us.
        unsafe { &*line.panics }.put(platform, context.cpu, panic);
    }
}
