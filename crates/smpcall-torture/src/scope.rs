//! Posted functions that use the case's stack, and are counted.
//!
//! A posted closure must be `'static`, and a case's state is on its stack. So a [`Scope`] lends its
//! address to each closure, counts what was accepted and what has run, and waits at its end until both
//! are equal. A call that the library lost stops the whole run there, after the dump: returning
//! would leave the closure a dangling pointer.

use core::pin::Pin;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use smpcall::{CallError, CpuId, CpuMask, Csd, PostManyError, Refused, Smp};

use crate::check::Failure;
use crate::cx::{Cx, LIMIT_NS};
use crate::lab::Lab;

/// State that posted functions use.
pub(crate) struct Scope<L, T, const W: usize, const D: usize> {
    lab: NonNull<L>,
    /// The state.
    pub(crate) state: T,
    accepted: AtomicU64,
    ran: AtomicU64,
}

// SAFETY: the lab and the state are shared by reference, the counters are atomics.
unsafe impl<L: Sync, T: Sync, const W: usize, const D: usize> Sync for Scope<L, T, W, D> {}

/// The scope's address, in a posted closure.
struct Lent<S>(NonNull<S>);

impl<S> Clone for Lent<S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S> Copy for Lent<S> {}

// SAFETY: it is used as a shared reference.
unsafe impl<S: Sync> Send for Lent<S> {}
// SAFETY: as above.
unsafe impl<S: Sync> Sync for Lent<S> {}

/// Counts a run, even one that panics.
struct Count<'a>(&'a AtomicU64);

impl Drop for Count<'_> {
    fn drop(&mut self) {
        // ORDERING: Release — what the function did is visible to the scope's end, which may then
        // take the scope away.
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// More than any operation posts at once.
const MANY: u64 = 1 << 32;

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    /// Runs `body` with state that posted functions may use, and waits until all of them have run.
    ///
    /// # Errors
    /// What `body` answers.
    pub(crate) fn scope<T: Sync + 'static, R>(
        &self,
        state: T,
        body: impl FnOnce(&Scope<L, T, W, D>) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let scope = Scope {
            lab: NonNull::from(self.lab()),
            state,
            accepted: AtomicU64::new(0),
            ran: AtomicU64::new(0),
        };
        let settle = Settle {
            cx: self,
            scope: &scope,
        };
        body(settle.scope)
    }
}

/// Waits at the end of a scope, also when its body panics.
struct Settle<'a, 'l, L: Lab<W, D>, T, const W: usize, const D: usize> {
    cx: &'a Cx<'l, L, W, D>,
    scope: &'a Scope<L, T, W, D>,
}

impl<L: Lab<W, D>, T, const W: usize, const D: usize> Drop for Settle<'_, '_, L, T, W, D> {
    fn drop(&mut self) {
        let Scope { accepted, ran, .. } = self.scope;
        // ORDERING: Acquire — what ran is over. Nested posts count before the post that made them
        // has run, so equality means that nothing is left.
        let all = || ran.load(Ordering::Acquire) == accepted.load(Ordering::Acquire);
        if !self.cx.wait_at_most(2 * LIMIT_NS, all) {
            let (accepted, ran) = (
                accepted.load(Ordering::Relaxed),
                ran.load(Ordering::Relaxed),
            );
            self.cx.lab().log(format_args!(
                "dump: {accepted} posts were accepted, {ran} ran"
            ));
            self.cx
                .fatal("an accepted post never ran, or one ran twice");
        }
    }
}

impl<L: Lab<W, D>, T: Sync + 'static, const W: usize, const D: usize> Scope<L, T, W, D> {
    /// The instance.
    pub(crate) fn smp(&self) -> &Smp<L::P, W, D> {
        // SAFETY: the lab outlives the scope (`Cx::scope`).
        unsafe { self.lab.as_ref() }.smp()
    }

    /// How many posted functions have run.
    pub(crate) fn ran(&self) -> u64 {
        // ORDERING: Acquire — pairs with the count: what they did is visible.
        self.ran.load(Ordering::Acquire)
    }

    /// A closure to be posted once, through [`Self::hand_out`].
    pub(crate) fn once<F>(&self, f: F) -> impl FnOnce() + Send + 'static + use<L, T, F, W, D>
    where
        F: FnOnce(&Self) + Send + 'static,
    {
        let lent = Lent(NonNull::from(self));
        move || {
            let lent = lent;
            // SAFETY: accepted and not yet run, so the scope waits for us.
            let scope = unsafe { lent.0.as_ref() };
            let _count = Count(&scope.ran);
            f(scope);
        }
    }

    /// A closure to be posted to many, through [`Self::hand_out`].
    pub(crate) fn each<F>(
        &self,
        f: F,
    ) -> impl Fn(CpuId) + Copy + Send + 'static + use<L, T, F, W, D>
    where
        F: Fn(&Self, CpuId) + Copy + Send + 'static,
    {
        let lent = Lent(NonNull::from(self));
        move |cpu| {
            let lent = lent;
            // SAFETY: accepted and not yet run, so the scope waits for us.
            let scope = unsafe { lent.0.as_ref() };
            let _count = Count(&scope.ran);
            f(scope, cpu);
        }
    }

    /// A descriptor whose function uses the scope; [`Self::post_csd`] posts it.
    pub(crate) fn csd<F>(
        &self,
        f: F,
    ) -> Csd<impl Fn() + Copy + Send + Sync + 'static + use<L, T, F, W, D>>
    where
        F: Fn(&Self) + Copy + Send + Sync + 'static,
    {
        let lent = Lent(NonNull::from(self));
        Csd::new(move || {
            let lent = lent;
            // SAFETY: accepted and not yet run, so the scope waits for us.
            let scope = unsafe { lent.0.as_ref() };
            let _count = Count(&scope.ran);
            f(scope);
        })
    }

    /// Does an operation that posts closures of this scope, counting those that were accepted.
    pub(crate) fn hand_out<R>(
        &self,
        operation: impl FnOnce() -> R,
        accepted: impl FnOnce(&R) -> u64,
    ) -> R {
        // ORDERING: Relaxed — before the operation, so that the count is never behind; whoever
        // ends the scope is the one that posted, or waits for it.
        self.accepted.fetch_add(MANY, Ordering::Relaxed);
        let result = operation();
        // ORDERING: Relaxed — as above.
        self.accepted
            .fetch_sub(MANY - accepted(&result), Ordering::Relaxed);
        result
    }

    /// Posts to one CPU.
    pub(crate) fn post<F>(&self, cpu: CpuId, f: F) -> Result<(), CallError>
    where
        F: FnOnce(&Self) + Send + 'static,
    {
        self.one(|| self.smp().post(cpu, self.once(f)))
    }

    /// Posts to one CPU, waiting for room.
    pub(crate) fn post_wait<F>(&self, cpu: CpuId, f: F) -> Result<(), CallError>
    where
        F: FnOnce(&Self) + Send + 'static,
    {
        self.one(|| self.smp().post_wait(cpu, self.once(f)))
    }

    fn one<R, F>(&self, operation: impl FnOnce() -> Result<R, Refused<F>>) -> Result<R, CallError> {
        self.hand_out(operation, |result| u64::from(result.is_ok()))
            .map_err(|refused| refused.error)
    }

    /// Posts to one CPU of a mask.
    pub(crate) fn post_any<F>(&self, cpus: &CpuMask<W>, f: F) -> Result<CpuId, CallError>
    where
        F: FnOnce(&Self) + Send + 'static,
    {
        self.one(|| self.smp().post_any(cpus, self.once(f)))
    }

    /// Posts a descriptor of [`Self::csd`].
    pub(crate) fn post_csd<F>(&self, cpu: CpuId, csd: Pin<&Csd<F>>) -> Result<(), CallError>
    where
        F: Fn() + Copy + Send + 'static,
    {
        let post = || self.smp().post_csd(cpu, csd);
        self.hand_out(post, |result| u64::from(result.is_ok()))
    }

    /// Posts a closure of [`Self::each`] by one of the mask forms; answers who will run it and whose
    /// lanes were full.
    pub(crate) fn post_mask<F>(
        &self,
        operation: impl FnOnce() -> Result<CpuMask<W>, PostManyError<F, W>>,
    ) -> (CpuMask<W>, CpuMask<W>) {
        let sets = || match operation() {
            Ok(posted) => (posted, CpuMask::EMPTY),
            Err(error) => (error.posted, error.full),
        };
        self.hand_out(sets, |(posted, _)| posted.len() as u64)
    }
}
