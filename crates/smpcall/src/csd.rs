//! The caller-owned call descriptor (`call_single_data`).
//!
//! A descriptor is embedded in whatever the caller owns, so that queueing it needs no room anywhere
//! else. It is posted ([`Smp::post_csd`](crate::Smp::post_csd)) or called and waited for
//! ([`Smp::call_csd`](crate::Smp::call_csd)). One word says who has it:
//!
//! ```text
//!           (1) lock, sender          (2) push, sender
//!   FREE ─────────────────────▶ LOCKED ───────────────▶ LOCKED, queued
//!    ▲ ▲                                                  │          │
//!    │ │    (3) posted: unlock, target, before it runs    │          │
//!    │ └──────────────────────────────────────────────────┘          │
//!    └──────── (4) called: unlock, target, after it ran ◀────────────┘
//! ```
//!
//! DIVERGES: the seed unlocks a no-wait descriptor only after its function ran, so the function
//! could not queue it again (os_anchors 2.0, defect 4). Here the function is copied out and
//! the descriptor freed first. Edges: E1 (2→3, 2→4), E2 (4→waiter), E3 (3, 4→1).

use core::fmt;
use core::marker::{PhantomData, PhantomPinned};
use core::ptr::{self, NonNull};

use crate::cpu::CpuId;
use crate::platform::Platform;
use crate::queue::{Closed, Context, Node, Queue};
use crate::smp::Smp;
use crate::stall::run_named;
use crate::sync::{AtomicU32, Ordering, UnsafeCell, loom_const_fn, mutant, ord};

const FREE: u32 = 0;
const LOCKED: u32 = 1;

/// How the drop of a descriptor that is queued on a CPU waits, or stops everything. It is part of
/// the CPU's area, so that a post stores one word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DropWait {
    pub(crate) smp: *const (),
    pub(crate) target: CpuId,
    /// # Safety
    /// 1. The first argument is `smp`, an instance of the function's own type, alive.
    pub(crate) wait: unsafe fn(*const (), CpuId, &dyn Fn() -> bool),
}

impl DropWait {
    /// Of an instance that was never set up, whose queues are closed: never used.
    pub(crate) const NOT_SET_UP: Self = Self {
        smp: ptr::null(),
        target: CpuId::new(0),
        wait: |_, _, _| {},
    };
}

// SAFETY: written before it is shared; the instance it names is shared by all CPUs.
unsafe impl Sync for DropWait {}

/// A call descriptor that its user owns.
///
/// ```
/// use smpcall::Csd;
/// static TICK: Csd = Csd::new(|| { /* short and non-blocking */ });
/// assert!(!TICK.is_queued());
/// ```
#[doc(alias = "call_single_data")]
#[repr(C)]
pub struct Csd<F = fn()> {
    node: Node,
    state: AtomicU32,
    function: F,
    /// Posted: the target's [`DropWait`]. Called: the waiter's [`CsdPanic`].
    attached: UnsafeCell<*const ()>,
    _pin: PhantomPinned,
}

// SAFETY: `state` gives node, function and `attached` to one side at a time; the function is shared
// by reference (`Sync`) or copied to the target (`Send`).
unsafe impl<F: Send + Sync> Sync for Csd<F> {}
// SAFETY: a descriptor that can be moved is in no queue: queued ones are pinned, static or borrowed.
unsafe impl<F: Send> Send for Csd<F> {}

impl<F> fmt::Debug for Csd<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Csd")
            .field("queued", &self.is_queued())
            .finish_non_exhaustive()
    }
}

impl<F> Csd<F> {
    loom_const_fn! {
        /// A free descriptor of this function.
        pub fn new(function: F) -> Self {
            Self {
                node: Node::new(),
                state: AtomicU32::new(FREE),
                function,
                attached: UnsafeCell::new(ptr::null()),
                _pin: PhantomPinned,
            }
        }
    }

    /// Is it queued, or called and not finished? Another CPU may change the answer at once.
    pub fn is_queued(&self) -> bool {
        // ORDERING: Acquire — after a `false` the target's use of the descriptor is over (E3).
        self.state.load(ord!("e3_queued_relaxed", Acquire)) != FREE
    }

    /// The function.
    pub fn function(&self) -> &F {
        &self.function
    }

    /// The address that names the call, on both sides: the node's.
    #[inline]
    pub(crate) fn request(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// Sender: (1). `false`: it is queued.
    #[doc(alias = "csd_lock")]
    pub(crate) fn try_lock(&self) -> bool {
        // ORDERING: Acquire — the last target's use of the descriptor is over (E3).
        self.state
            .compare_exchange(
                FREE,
                LOCKED,
                ord!("e3_lock_relaxed", Acquire),
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// A sender that was refused; (3) and (4) are [`free`].
    #[doc(alias = "csd_unlock")]
    pub(crate) fn unlock(&self) {
        free(&self.state);
    }

    /// Waiter of a called descriptor: has it run?
    pub(crate) fn is_done(&self) -> bool {
        // ORDERING: Acquire — what the function wrote is visible (E2).
        self.state.load(ord!("e3_done_relaxed", Acquire)) == FREE
    }
}

/// Frees a descriptor, which may be gone at once: so the word alone is borrowed here.
fn free(state: &AtomicU32) {
    // ORDERING: Release — our use of the descriptor, and what the function of a waited call
    // wrote, are over; pairs with `try_lock` (E3) and `is_done` (E2).
    state.store(FREE, ord!("e3_unlock_relaxed", Release));
}

impl<F: Fn() + Copy + Send + 'static> Csd<F> {
    /// Makes a locked descriptor ready to be copied, freed and run, (3); it is queued next, (2).
    ///
    /// # Safety
    /// 1. The caller locked it; it stays valid until it is free again (static, or pinned with the
    ///    drop below), and `drop_wait` with it.
    /// 2. The queue's owner runs its calls with a context whose platform is a `P`.
    pub(crate) unsafe fn ready_to_post<P: Platform>(
        &self,
        drop_wait: *const DropWait,
    ) -> NonNull<Node> {
        // SAFETY: 1 — locked: ours.
        self.attached
            .with_mut(|attached| unsafe { attached.write(drop_wait.cast()) });
        // SAFETY: 1 — locked: in no queue.
        unsafe { self.node.set_run(run_posted::<P, F>) };
        NonNull::from(self).cast()
    }
}

impl<F: Fn() + Sync> Csd<F> {
    /// Queues a locked descriptor to be run and then freed: (2), (4).
    ///
    /// # Safety
    /// 1. The caller locked it and waits for [`Self::is_done`] before it lets go of the borrow.
    /// 2. As [`Self::ready_to_post`].
    pub(crate) unsafe fn push_call<P: Platform>(
        &self,
        queue: &Queue,
        panicked: &CsdPanic<P>,
    ) -> Result<bool, Closed> {
        let panicked = ptr::from_ref(panicked).cast();
        // SAFETY: 1 — locked: ours.
        self.attached
            .with_mut(|attached| unsafe { attached.write(panicked) });
        // SAFETY: 1 — locked: in no queue.
        unsafe { self.node.set_run(run_called::<P, F>) };
        // SAFETY: 1, 2 of `push` — locked, and the waiter keeps it.
        unsafe { queue.push(NonNull::from(self).cast()) }
    }
}

/// Where a called descriptor's panic goes: the waiter's stack.
pub(crate) struct CsdPanic<P: Platform>(pub(crate) UnsafeCell<Option<P::Panic>>, PhantomData<P>);

impl<P: Platform> CsdPanic<P> {
    pub(crate) fn new() -> Self {
        Self(UnsafeCell::new(None), PhantomData)
    }

    /// The panic, after the descriptor is done.
    pub(crate) fn take(self) -> Option<P::Panic> {
        // SAFETY: the waiter owns the slot; the target's write happened before `is_done` (E2).
        self.0.with_mut(|slot| unsafe { (*slot).take() })
    }
}

/// Runs a posted descriptor: copy, free, run.
///
/// # Safety
/// As [`crate::queue::NodeFn`].
unsafe fn run_posted<P: Platform, F: Fn() + Copy>(context: &Context, node: NonNull<Node>) {
    let csd = node.cast::<Csd<F>>();
    // SAFETY: 1 of `NodeFn` — the node heads a descriptor of this type, alive until it is freed.
    let csd = unsafe { csd.as_ref() };
    let function = csd.function;
    let late = mutant!("bug_csd_freed_after_its_run");
    if !late {
        free(&csd.state);
    }
    // SAFETY: 2 of `NodeFn` and of `ready_to_post`.
    unsafe { crate::post::run_and_report::<P, F>(context, node.addr().get(), function) };
    if late {
        free(&csd.state);
    }
}

/// Runs a called descriptor: run, free.
///
/// # Safety
/// As [`crate::queue::NodeFn`].
unsafe fn run_called<P: Platform, F: Fn()>(context: &Context, node: NonNull<Node>) {
    let csd = node.cast::<Csd<F>>();
    // SAFETY: 1 of `NodeFn` — the node heads a descriptor of this type, alive until it is freed.
    let csd = unsafe { csd.as_ref() };
    // SAFETY: 2 of `NodeFn` and of `push_call`.
    let platform = unsafe { &*context.platform.cast::<P>() };
    let run = || (csd.function)();
    if let Err(panic) = run_named::<P, F, ()>(platform, context.cpu, node.addr().get(), run) {
        // SAFETY: the descriptor is locked, so the waiter does not touch the cell.
        let slot = csd.attached.with(|attached| unsafe { *attached });
        // SAFETY: `push_call` stored the address of the waiter's `CsdPanic`, alive until `unlock`.
        let slot = unsafe { &*slot.cast::<CsdPanic<P>>() };
        // SAFETY: the waiter reads the slot only after `unlock`.
        slot.0.with_mut(|slot| unsafe { *slot = Some(panic) });
    }
    free(&csd.state);
}

impl<F> Drop for Csd<F> {
    /// Waits until a queued descriptor has been taken; where waiting is impossible, stops
    /// everything with a message that names it.
    fn drop(&mut self) {
        if !self.is_queued() {
            return;
        }
        // SAFETY: a queued descriptor's cell is written before it is queued and not after.
        let posted = self.attached.with(|attached| unsafe { *attached });
        // SAFETY: a called descriptor is borrowed until it is done, so this one was posted: the cell
        // has its target's `DropWait`, which lives as long as the instance.
        let posted = unsafe { &*posted.cast::<DropWait>() };
        // SAFETY: 1 — the instance wrote itself into its areas.
        unsafe { (posted.wait)(posted.smp, posted.target, &|| self.is_queued()) };
    }
}

/// Waits for a descriptor that is dropped while it is queued.
///
/// # Safety
/// 1. `smp` is a `Smp<P, W, D>` that is alive, which the queued descriptor implies.
pub(crate) unsafe fn wait_for_dropped<P: Platform, const W: usize, const D: usize>(
    smp: *const (),
    target: CpuId,
    queued: &dyn Fn() -> bool,
) {
    // SAFETY: 1.
    let smp = unsafe { &*smp.cast::<Smp<P, W, D>>() };
    let me = smp.platform.current_cpu();
    if me.is_some_and(|me| smp.own(me).local.in_handler()) {
        smp.platform.fatal(format_args!(
            "a Csd that is queued on CPU {target} was dropped inside a called function, \
             where its queue cannot be waited for"
        ));
    }
    let mut waiter = smp.waiter(me);
    if !smp.platform.irqs_enabled() {
        waiter.serve = me;
    }
    smp.wait_until(waiter, target, || !queued());
}

#[cfg(all(test, loom))]
mod tests;
