//! The send side to many CPUs.
//!
//! A mask form runs on mask AND online and answers the mask that ran. One remote target is a plain
//! call; more use the source's broadcast record. The local run overlaps the remote ones. Predicates
//! are asked before anything is queued. A thread that is no CPU has no record: it queues stack records
//! in batches. A panic waits until all targets have finished; the lowest CPU's continues in the caller.

use core::fmt;
use core::marker::PhantomData;
use core::ptr;

use crate::area::{MAILBOXES, MAILING_TO_ALL};
use crate::bell::{self, Ring};
use crate::broadcast::BroadcastFn;
use crate::cpu::{CpuId, CpuMask, Crowd};
use crate::error::{CallError, Refused};
use crate::guard::Pinned;
use crate::job::Outcome;
use crate::mailbox::{MailFn, Payload};
use crate::platform::Platform;
use crate::queue::Context;
use crate::record::Record;
use crate::smp::{Smp, Waiter};
use crate::sync::{AtomicU32, Ordering, UnsafeCell, fence, ord};

/// How many records a foreign thread keeps on its stack at a time.
const FOREIGN_BATCH: usize = 16;

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
            self.online
                .load()
                .iter()
                .filter(|&cpu| wanted(cpu))
                .collect()
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
        // Orders our earlier stores before the requests, as the seed does; each call's own
        // Release and Acquire carry them to the handlers (E12).
        fence(Ordering::SeqCst);
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
        let shared = Shared {
            f: &f,
            panics: PanicSlot::<P>::new(),
        };
        let run_local = || {
            if let Some(here) = here
                && let Err(panic) = self.catch_here(here, || f(here))
            {
                shared.panics.put(&self.platform, here, panic);
            }
        };
        self.fan_out(self.waiter(me), &mut targets, &shared, run_local);
        here.map(|here| targets.insert(here));
        match shared.panics.take() {
            None => Ok(targets),
            Some(panic) => self.platform.resume(panic),
        }
    }

    /// Runs the function on the targets and `run_local` here, and waits. Takes those out of the
    /// targets that turn out to be offline.
    #[inline]
    fn fan_out<F>(
        &self,
        waiter: Waiter,
        targets: &mut CpuMask<W>,
        shared: &Shared<'_, F, P>,
        run_local: impl FnOnce(),
    ) where
        F: Fn(CpuId) + Sync,
    {
        match (targets.crowd(self.nr_words()), waiter.me) {
            (Crowd::Nobody, _) => run_local(),
            (Crowd::One(only), _) => {
                if !self.fan_out_to_one(waiter, only, shared, run_local) {
                    targets.remove(only);
                }
            }
            (Crowd::Several, Some(me)) => self.broadcast(waiter, me, targets, shared, run_local),
            (Crowd::Several, None) => {
                run_local();
                *targets = self.queue_in_batches(waiter, targets, shared);
            }
        }
    }

    /// One remote CPU: a plain call, with the local run beside it. `false`: it was offline.
    #[inline]
    fn fan_out_to_one<F>(
        &self,
        waiter: Waiter,
        cpu: CpuId,
        shared: &Shared<'_, F, P>,
        run_local: impl FnOnce(),
    ) -> bool
    where
        F: Fn(CpuId) + Sync,
    {
        let mut run_local = Some(run_local);
        let f = shared.f;
        let meanwhile = || run_local.take().into_iter().for_each(|run| run());
        match self.call_remote(waiter, cpu, || f(cpu), meanwhile) {
            Ok(outcome) => {
                if let Err(panic) = outcome {
                    shared.panics.put(&self.platform, cpu, panic);
                }
                true
            }
            Err(_offline) => {
                run_local.take().into_iter().for_each(|run| run());
                false
            }
        }
    }

    /// Several remote CPUs, from a CPU: its mailbox lines there, and its broadcast record for the
    /// targets whose line another source owns.
    fn broadcast<F>(
        &self,
        waiter: Waiter,
        me: CpuId,
        targets: &mut CpuMask<W>,
        shared: &Shared<'_, F, P>,
        run_local: impl FnOnce(),
    ) where
        F: Fn(CpuId) + Sync,
    {
        let local = &self.own(me).local;
        if local.mailing() != 0 {
            // We interrupted a call of this CPU, whose lines and record are in use.
            run_local();
            *targets = self.queue_in_batches(waiter, targets, shared);
            return;
        }
        local.set_mailing(MAILING_TO_ALL);
        let data = ptr::from_ref(shared).cast();
        let mut out = FanOut {
            ran: targets,
            kicks: CpuMask::EMPTY,
            kicked: 0,
            any_rest: false,
        };
        let words = self.nr_words().min(W);
        for w in 0..words {
            for cpu in out.ran.in_word(w) {
                self.mail(me, cpu, run_mailed::<P, F>, data, &mut out);
            }
        }
        if out.any_rest {
            self.request_rest(me, run_shared::<P, F>, data, &mut out);
        }
        self.kick(&out);
        run_local();
        for w in 0..words {
            for cpu in out.ran.in_word(w) {
                let area = self.own(cpu);
                let mailbox = &area.mail[me.index() % MAILBOXES];
                // The line of a target that was requested instead is not ours.
                if mailbox.is_owned_by(me.get()) && self.wait_for_mail(waiter, cpu, area, mailbox) {
                    out.ran.remove(cpu);
                }
            }
        }
        if out.any_rest {
            self.wait_for_rest(waiter, me);
        }
        local.set_mailing(0);
    }

    /// Publishes a broadcast in our mailbox line of one target, if it is or becomes ours.
    #[inline]
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
        if seen == bell::POLLING {
            return;
        }
        match area.bell.ring_from(seen) {
            Ring::Kick => out.kick(cpu),
            Ring::Closed if mailbox.retract() => {
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
    fn wait_for_rest(&self, waiter: Waiter, me: CpuId) {
        let record = &self.own(me).broadcast;
        while !record.is_done() {
            if let Some(cpu) = record.laggards().first() {
                self.wait_until(waiter, cpu, || !record.laggards().contains(cpu));
            }
        }
    }

    /// Sends the IPIs of a broadcast: one by one, or by multicast.
    #[inline]
    fn kick(&self, out: &FanOut<'_, W>) {
        match (out.kicked, out.kicks.first()) {
            (1, Some(only)) => self.platform.send_ipi(only),
            (2.., _) => self.platform.send_ipi_mask(&out.kicks, out.kicked),
            _ => {}
        }
    }

    /// Several CPUs, from a thread that is none: records on this stack, a batch at a time.
    #[cold]
    fn queue_in_batches<F>(
        &self,
        waiter: Waiter,
        targets: &CpuMask<W>,
        shared: &Shared<'_, F, P>,
    ) -> CpuMask<W>
    where
        F: Fn(CpuId) + Sync,
    {
        let mut ran = CpuMask::EMPTY;
        let mut rest = targets.iter();
        loop {
            let mut batch = [const { None }; FOREIGN_BATCH];
            let mut queued = 0;
            for cpu in rest.by_ref().take(FOREIGN_BATCH) {
                let f = shared.f;
                batch[queued] = Some((cpu, Record::<_, Outcome<P, ()>>::new(move || f(cpu))));
                queued += 1;
            }
            if queued == 0 {
                return ran;
            }
            ran = ran.or(&self.run_batch(waiter, &batch[..queued]));
            for (cpu, record) in batch.into_iter().flatten() {
                if ran.contains(cpu)
                    // SAFETY: 1 — `run_batch` waited for it.
                    && let Err(panic) = unsafe { record.into_outcome() }
                {
                    shared.panics.put(&self.platform, cpu, panic);
                }
            }
        }
    }

    /// Queues the records of a batch and waits for all that were accepted.
    fn run_batch<F: FnOnce()>(
        &self,
        waiter: Waiter,
        batch: &[Option<(CpuId, Record<F, Outcome<P, ()>>)>],
    ) -> CpuMask<W> {
        let mut ran = CpuMask::EMPTY;
        for (cpu, record) in batch.iter().flatten() {
            let area = self.own(*cpu);
            // SAFETY: 1 — new, and waited for below, before the caller's borrow ends; 2 — our queue.
            let pushed = unsafe { record.push::<P, ()>(&area.queues.waited) };
            if self.announce_waited(*cpu, area, pushed) {
                ran.insert(*cpu);
            }
        }
        for (cpu, record) in batch.iter().flatten().filter(|(cpu, _)| ran.contains(*cpu)) {
            self.wait_until(waiter, *cpu, || record.is_done());
        }
        ran
    }

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
            match self.post_with_id(cpu, self.own(cpu), f) {
                Ok(()) => posted.insert(cpu),
                Err(Refused {
                    error: CallError::Full { .. },
                    ..
                }) => full.insert(cpu),
                Err(_offline) => false,
            };
        }
        if let Some(me) = me.filter(|&me| cpus.contains(me) && local == Local::Include) {
            self.run_posted_here(me, || f(me));
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

/// Does the local CPU run the function too?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Local {
    Include,
    LeaveOut,
}

/// What the CPUs of a broadcast share, on the caller's stack.
struct Shared<'a, F, P: Platform> {
    f: &'a F,
    panics: PanicSlot<P>,
}

/// Where a broadcast goes.
struct FanOut<'a, const W: usize> {
    /// The targets, without those that turn out to be offline.
    ran: &'a mut CpuMask<W>,
    /// Those to be interrupted.
    kicks: CpuMask<W>,
    /// How many those are.
    kicked: usize,
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

/// Runs a broadcast that came by mailbox.
///
/// # Safety
/// As [`MailFn`].
unsafe fn run_mailed<P: Platform, F: Fn(CpuId) + Sync>(context: &Context, payload: *mut Payload) {
    // SAFETY: 1 of `MailFn` — `mail` published the address of a `Shared` with this function.
    let data = unsafe { *payload.cast::<*const ()>() };
    // SAFETY: 1, 2 — as above, and our own context.
    unsafe { run_shared::<P, F>(context, data) };
}

/// Runs a broadcast's function.
///
/// # Safety
/// As [`crate::broadcast::BroadcastFn`].
unsafe fn run_shared<P: Platform, F: Fn(CpuId) + Sync>(context: &Context, data: *const ()) {
    // SAFETY: 1 of `BroadcastFn` — prepared with a `Shared` of this type, alive until we finish.
    let shared = unsafe { &*data.cast::<Shared<'_, F, P>>() };
    // SAFETY: 2 of `BroadcastFn` — the context's platform.
    let platform = unsafe { &*context.platform.cast::<P>() };
    if let Err(panic) = platform.catch(|| (shared.f)(context.cpu)) {
        shared.panics.put(platform, context.cpu, panic);
    }
}

/// The panic of the lowest CPU, under a lock that is held for a few instructions.
struct PanicSlot<P: Platform> {
    locked: AtomicU32,
    lowest: UnsafeCell<Option<(CpuId, P::Panic)>>,
    _platform: PhantomData<P>,
}

// SAFETY: `locked` guards the cell, and a panic is `Send`.
unsafe impl<P: Platform> Sync for PanicSlot<P> {}

impl<P: Platform> PanicSlot<P> {
    fn new() -> Self {
        Self {
            locked: AtomicU32::new(0),
            lowest: UnsafeCell::new(None),
            _platform: PhantomData,
        }
    }

    /// Keeps the panic if no lower CPU's is kept, and reports the other.
    #[cold]
    fn put(&self, platform: &P, cpu: CpuId, panic: P::Panic) {
        // ORDERING: Acquire — the last holder's write is visible; pairs with the store below (E21).
        while self
            .locked
            .compare_exchange(0, 1, ord!("e21_lock_relaxed", Acquire), Ordering::Relaxed)
            .is_err()
        {
            platform.relax(0);
        }
        // SAFETY: the lock is ours.
        let rest = self.lowest.with_mut(|slot| unsafe {
            let slot = &mut *slot;
            match slot.take() {
                Some((lower, kept)) if lower < cpu => {
                    *slot = Some((lower, kept));
                    Some((cpu, panic))
                }
                higher => {
                    *slot = Some((cpu, panic));
                    higher
                }
            }
        });
        // ORDERING: Release — publishes the slot to the next holder (E21).
        self.locked.store(0, ord!("e21_unlock_relaxed", Release));
        if let Some((cpu, panic)) = rest {
            platform.report_panic(cpu, panic);
        }
    }

    /// The kept panic, after every target has finished.
    fn take(&self) -> Option<P::Panic> {
        // SAFETY: all targets have finished (E13, E5, E2): nobody else looks.
        self.lowest
            .with_mut(|slot| unsafe { (*slot).take() })
            .map(|(_, panic)| panic)
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

#[cfg(all(test, loom))]
mod tests;
