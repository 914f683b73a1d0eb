//! The send side to one CPU, waited for.
//!
//! `call` moves the closure to the target and its result back. A source that owns a mailbox line of
//! the target uses that line: no lock, no read-modify-write, one line there and back. Otherwise
//! the closure waits in a record on this stack, in the target's queue. On the calling CPU itself it
//! runs inline. The caller waits if and only if something was published, whether or not an IPI
//! was needed.

use core::ptr;

use crate::area::{Area, MAILBOXES};
use crate::bell;
use crate::cpu::{CpuId, CpuMask};
use crate::csd::{Csd, CsdPanic};
use crate::error::{CallError, Refused};
use crate::guard::{IrqsOff, Pinned};
use crate::job::{self, Job, Outcome};
use crate::mailbox::Mailbox;
use crate::platform::Platform;
use crate::record::Record;
use crate::smp::{Smp, Waiter};
use crate::stall::{Running, Suspect, run_named};

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Runs `f` on `cpu` and answers its result; everything it wrote is visible here.
    ///
    /// The closure may borrow this stack. It runs in handler context with interrupts off, so it must be
    /// short and must not block or wait; on the calling CPU it runs inline under the same
    /// conditions. If it panics (hosted), the panic continues here.
    ///
    /// Context: interrupts on, not inside a called function. Any thread.
    ///
    /// # Errors
    /// Hands the closure back: `NoSuchCpu`, `Offline`, `InterruptsOff`, `InHandler`.
    #[doc(alias = "smp_call_function_single")]
    #[track_caller]
    #[inline]
    pub fn call<R, F>(&self, cpu: CpuId, f: F) -> Result<R, Refused<F>>
    where
        F: FnOnce() -> R + Send,
        R: Send,
    {
        let _pinned = Pinned::new(&self.platform);
        let me = self.platform.current_cpu();
        if me == Some(cpu) {
            return Ok(self.run_here(cpu, f));
        }
        self.call_elsewhere(me, cpu, f)
    }

    /// The part of [`call`](Self::call) that is not inlined: calls to oneself stay small. The waiter
    /// is made here, so that it needs no memory.
    #[track_caller]
    #[inline(never)]
    fn call_elsewhere<R, F>(&self, me: Option<CpuId>, cpu: CpuId, f: F) -> Result<R, Refused<F>>
    where
        F: FnOnce() -> R + Send,
        R: Send,
    {
        if let Err(error) = self.may_wait(me) {
            return Err(Refused::new(error, f));
        }
        let outcome = self.call_remote(self.waiter(me), cpu, f, |_| ())?;
        Ok(self.unwrap(outcome))
    }

    /// As [`call`](Self::call) with interrupts off: while it waits, this CPU runs the calls that
    /// others have sent to it, so that two CPUs that call each other this way both finish.
    ///
    /// The guard is borrowed mutably, so that no per-CPU data is borrowed through it meanwhile.
    ///
    /// # Errors
    /// `NoSuchCpu`, `Offline`, `InHandler`, with the closure.
    ///
    /// # Panics
    /// If an invariant of the protocol is broken.
    #[track_caller]
    pub fn call_irqs_off<R, F>(
        &self,
        guard: &mut IrqsOff<'_, P>,
        cpu: CpuId,
        f: F,
    ) -> Result<R, Refused<F>>
    where
        F: FnOnce() -> R + Send,
        R: Send,
    {
        let me = self.platform.current_cpu();
        if me == Some(cpu) {
            return Ok(self.run_here(cpu, f));
        }
        if me.is_some_and(|me| self.own(me).local.in_handler()) {
            return Err(Refused::new(CallError::InHandler, f));
        }
        assert!(
            guard.is_of(&self.platform, me.map(|me| &self.own(me).local.guards)),
            "interrupts are off on another CPU or instance: its guard does not keep us here"
        );
        let waiter = Waiter {
            serve: me,
            ..self.waiter(me)
        };
        let outcome = self.call_remote(waiter, cpu, f, |_| ())?;
        Ok(self.unwrap(outcome))
    }

    /// Runs `f` on one CPU of `cpus`: this one if it is in the mask, else the nearest online
    /// one, by memory node. Answers which, and the result.
    ///
    /// # Errors
    /// `EmptyMask` if no CPU of the mask is online; otherwise as [`call`](Self::call).
    #[doc(alias = "smp_call_function_any")]
    #[track_caller]
    #[inline]
    pub fn call_any<R, F>(&self, cpus: &CpuMask<W>, f: F) -> Result<(CpuId, R), Refused<F>>
    where
        F: FnOnce() -> R + Send,
        R: Send,
    {
        let _pinned = Pinned::new(&self.platform);
        let me = self.platform.current_cpu();
        if let Some(me) = me.filter(|&me| cpus.contains(me)) {
            return Ok((me, self.run_here(me, f)));
        }
        if let Err(error) = self.may_wait(me) {
            return Err(Refused::new(error, f));
        }
        let waiter = self.waiter(me);
        let mut candidates = cpus.and(&self.online.load());
        let mut f = f;
        // A CPU that leaves between the choice and the call is taken out, and the next one asked.
        while let Some(cpu) = self.nearest(me, &candidates) {
            match self.call_remote(waiter, cpu, f, |_| ()) {
                Ok(outcome) => return Ok((cpu, self.unwrap(outcome))),
                Err(refused) => f = refused.closure,
            }
            candidates.remove(cpu);
        }
        Err(Refused::new(CallError::EmptyMask, f))
    }

    /// The candidate on the caller's node, else the first.
    pub(crate) fn nearest(&self, me: Option<CpuId>, candidates: &CpuMask<W>) -> Option<CpuId> {
        let node = me.map(|me| self.platform.node_of(me));
        candidates
            .iter()
            .find(|&cpu| Some(self.platform.node_of(cpu)) == node)
            .or_else(|| candidates.first())
    }

    /// Runs a descriptor's function on `cpu` and waits for it.
    ///
    /// A descriptor that is still queued from an earlier post is waited for first. On the calling
    /// CPU the function runs inline and the descriptor is not used.
    ///
    /// # Errors
    /// `NoSuchCpu`, `Offline`, `InterruptsOff`, `InHandler`.
    #[doc(alias = "__smp_call_function_single")]
    #[track_caller]
    pub fn call_csd<F: Fn() + Sync>(&self, cpu: CpuId, csd: &Csd<F>) -> Result<(), CallError> {
        let _pinned = Pinned::new(&self.platform);
        let me = self.platform.current_cpu();
        if me == Some(cpu) {
            self.run_here(cpu, csd.function());
            return Ok(());
        }
        self.may_wait(me)?;
        let waiter = self.waiter(me);
        let area = self.area(cpu).ok_or_else(|| self.refusal(cpu))?;
        self.wait_until(waiter, cpu, || csd.try_lock());
        let panicked = CsdPanic::<P>::new();
        self.trace_queue::<F>(cpu, csd.request());
        // SAFETY: 1 — locked just now, and waited for below; 2 — the queue is this instance's.
        let pushed = unsafe { csd.push_call(&area.queues.waited, &panicked) };
        if !self.announce_waited(cpu, area, pushed) {
            csd.unlock();
            return Err(self.refusal(cpu));
        }
        let suspect = Suspect::running(cpu, csd.request());
        self.wait_for(waiter, suspect, || csd.is_done());
        panicked
            .take()
            .map_or(Ok(()), |panic| self.platform.resume(panic))
    }

    /// Runs `f` on this CPU as a called function runs: interrupts off, handler context.
    #[inline]
    pub(crate) fn run_here<R, F: FnOnce() -> R>(&self, me: CpuId, f: F) -> R {
        let outcome = self.catch_here::<F, R>(me, f);
        self.unwrap(outcome)
    }

    /// As [`Self::run_here`], with the panic for the caller to keep; `Name` is what it wrote.
    #[inline]
    pub(crate) fn catch_here<Name, R>(&self, me: CpuId, f: impl FnOnce() -> R) -> Outcome<P, R> {
        let were_on = self.platform.irqs_save();
        let local = &self.own(me).local;
        let before = local.in_handler();
        local.set_in_handler(true);
        self.trace_queue::<Name>(me, 0);
        let running = self.platform.running(me);
        // A called function that posts to its own CPU is what runs again afterwards.
        let outer = running.map(Running::look);
        let outcome = run_named::<P, Name, R>(&self.platform, me, 0, f);
        if let (Some(running), Some((function, request))) = (running, outer) {
            running.set(function, request);
        }
        local.set_in_handler(before);
        self.platform.irqs_restore(were_on);
        outcome
    }

    /// The result, or the panic continued here.
    #[inline]
    pub(crate) fn unwrap<R>(&self, outcome: Outcome<P, R>) -> R {
        outcome.unwrap_or_else(|panic| self.platform.resume(panic))
    }

    /// Runs `f` on another CPU, `meanwhile` here, and waits. `meanwhile` must not panic; it gets
    /// whether nobody rang for this call (E8).
    #[inline]
    pub(crate) fn call_remote<R, F>(
        &self,
        waiter: Waiter,
        cpu: CpuId,
        f: F,
        meanwhile: impl FnOnce(bool),
    ) -> Result<Outcome<P, R>, Refused<F>>
    where
        F: FnOnce() -> R + Send,
        R: Send,
    {
        let Some(area) = self.area(cpu) else {
            return Err(Refused::new(self.refusal(cpu), f));
        };
        let seen = area.bell.look();
        if seen == bell::CLOSED {
            return Err(Refused::new(self.refusal(cpu), f));
        }
        if let Some(me) = waiter.me {
            let mailbox = &area.mail[me.index() % MAILBOXES];
            if self.begin_mail(me, cpu, mailbox) {
                return self.call_by_mailbox(waiter, me, cpu, area, mailbox, seen, f, meanwhile);
            }
            self.count_miss(me, cpu, mailbox);
        }
        self.call_by_record(waiter, cpu, area, f, meanwhile)
    }

    /// Marks the line as in use by this CPU's task context, if it is the CPU's own. `false` too in
    /// a context that interrupted a call by mailbox: the record serves it.
    #[inline]
    pub(crate) fn begin_mail(&self, me: CpuId, cpu: CpuId, mailbox: &Mailbox) -> bool {
        let local = &self.own(me).local;
        if local.mailing() != 0 {
            return false;
        }
        // The mark comes before the look: a request to let the line go that is handled between the
        // two would hand it to another source under our hands (E20).
        local.set_mailing(cpu.get() + 1);
        if mailbox.is_owned_by(me.get()) || mailbox.try_own(me.get()) {
            return true;
        }
        local.set_mailing(0);
        false
    }

    /// The fast path: the source owns the line and has marked it.
    #[expect(
        clippy::too_many_arguments,
        reason = "one inlined step of `call_remote`"
    )]
    #[inline]
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one obligation covers the accesses of the block"
    )]
    fn call_by_mailbox<R, F>(
        &self,
        waiter: Waiter,
        me: CpuId,
        cpu: CpuId,
        area: &Area<W, D>,
        mailbox: &Mailbox,
        seen: u32,
        f: F,
        meanwhile: impl FnOnce(bool),
    ) -> Result<Outcome<P, R>, Refused<F>>
    where
        F: FnOnce() -> R + Send,
        R: Send,
    {
        let run = job::mail_fn::<P, F, R>();
        let mut job = Job::<F, Outcome<P, R>>::new(f);
        // Raw, because the target uses the job through it when it does not fit the line.
        let job = &raw mut job;
        let in_line = job::in_line::<F, Outcome<P, R>>();
        self.trace_queue::<F>(cpu, mailbox.request());
        // SAFETY: 1 — ours, idle after our last wait, and marked as in use; 2 — the job or its
        // address is what `run` expects, and we wait below before the job's scope ends.
        unsafe {
            mailbox.publish(run, |payload| {
                if in_line {
                    ptr::copy_nonoverlapping(job, payload.cast(), 1);
                } else {
                    payload.cast::<*mut Job<F, Outcome<P, R>>>().write(job);
                }
            });
        }
        let mailbox = if P::WAITERS_SERVE {
            mailbox.by_another_name()
        } else {
            mailbox
        };
        let silent = self.looks_by_itself(seen);
        let refused =
            !silent && !self.act(cpu, area, area.bell.ring_from(seen)) && mailbox.retract();
        let refused = refused || {
            meanwhile(silent);
            self.wait_for_mail(waiter, cpu, area, mailbox, 0, || silent)
        };
        let job = if in_line {
            mailbox.payload(|payload| payload.cast())
        } else {
            job
        };
        let result = if refused {
            self.trace_refuse(cpu);
            // SAFETY: 1 — retracted: the closure is still in the job.
            Err(unsafe { Job::take_closure(job) })
        } else {
            // SAFETY: 1 — done: the outcome is in the job.
            Ok(unsafe { Job::take_outcome(job) })
        };
        // Only now may the line go to another source: the result was in it (E20).
        self.own(me).local.set_mailing(0);
        result.map_err(|f| Refused::new(self.refusal(cpu), f))
    }

    /// Waits for a mailbox; `true` when the target was found offline and the call taken back.
    /// `turns` of the wait have gone by; `is_unrung` tells whether nobody rang for the call because the target seemed to poll.
    #[inline]
    pub(crate) fn wait_for_mail(
        &self,
        waiter: Waiter,
        cpu: CpuId,
        area: &Area<W, D>,
        mailbox: &Mailbox,
        turns: u32,
        is_unrung: impl FnOnce() -> bool,
    ) -> bool {
        let mut spins = turns;
        while !mailbox.is_done() {
            if spins == P::GRACE_SPINS {
                let refused = is_unrung() && self.doubt(cpu, area, mailbox);
                if !refused {
                    self.wait_longer_for_mail(waiter, cpu, mailbox);
                }
                return refused;
            }
            self.turn(waiter, spins);
            spins += 1;
        }
        false
    }

    /// After the grace, for a call that nobody rang for: makes sure that the target looks (E8).
    /// `true`: it is offline, and the call was taken back.
    #[cold]
    fn doubt(&self, cpu: CpuId, area: &Area<W, D>, mailbox: &Mailbox) -> bool {
        !self.act(cpu, area, area.bell.ring_unless_polling()) && mailbox.retract()
    }

    /// After the grace: waits for a target that will look.
    #[cold]
    fn wait_longer_for_mail(&self, waiter: Waiter, cpu: CpuId, mailbox: &Mailbox) {
        let suspect = Suspect::running(cpu, mailbox.request());
        self.wait_for(waiter, suspect, || mailbox.is_done());
    }

    /// The general path: a record on this stack, in the target's queue.
    fn call_by_record<R, F>(
        &self,
        waiter: Waiter,
        cpu: CpuId,
        area: &Area<W, D>,
        f: F,
        meanwhile: impl FnOnce(bool),
    ) -> Result<Outcome<P, R>, Refused<F>>
    where
        F: FnOnce() -> R + Send,
        R: Send,
    {
        let record = Record::<F, Outcome<P, R>>::new(f);
        self.trace_queue::<F>(cpu, record.request());
        // SAFETY: 1 — new, and waited for below before it leaves; 2 — this instance's queue.
        let pushed = unsafe { record.push::<P, R>(&area.queues.waited) };
        if !self.announce_waited(cpu, area, pushed) {
            // SAFETY: 1 — refused.
            return Err(Refused::new(self.refusal(cpu), unsafe {
                record.into_closure()
            }));
        }
        meanwhile(false);
        let suspect = Suspect::running(cpu, record.request());
        self.wait_for(waiter, suspect, || record.is_done());
        // SAFETY: 1 — done.
        Ok(unsafe { record.into_outcome() })
    }
}
