//! What subsystems do when CPUs come and go: the callbacks of hotplug.
//!
//! They run in the order in which they were registered when a CPU comes, and in reverse when what
//! they set up is undone. A panic of one (hosted) leaves no CPU half way: that of a `prepare` undoes
//! what came before it and goes on in the caller; the others can refuse nothing, so theirs are
//! reported, and the CPU comes or goes as if they had returned. Edges: E17.

use core::ptr;

use crate::cpu::CpuId;
use crate::error::HotplugError;
use crate::platform::Platform;
use crate::smp::Smp;
use crate::sync::{AtomicPtr, Ordering, loom_const_fn, ord};

/// What a subsystem does when CPUs come and go (the seed's notifier).
///
/// The seed's `_FROZEN` twins, for suspend, are the same callbacks: nothing here differs.
#[derive(Debug, Clone, Copy)]
#[doc(alias = "notifier_block")]
#[doc(alias = "hotplug_cfd")]
pub struct CpuCallbacks {
    /// For reports.
    pub name: &'static str,
    /// Before the CPU is started, on the CPU that brings it up; task context. An error (its own
    /// code) undoes the callbacks before it, by their `dead`, in reverse order.
    #[doc(alias = "CPU_UP_PREPARE")]
    pub prepare: fn(CpuId) -> Result<(), i32>,
    /// On the new CPU, interrupts off, before it takes calls.
    #[doc(alias = "CPU_STARTING")]
    pub starting: fn(CpuId),
    /// On the leaving CPU, interrupts off, while it still takes calls.
    #[doc(alias = "CPU_DYING")]
    pub dying: fn(CpuId),
    /// After the CPU is gone or has failed to come, on the CPU that asked; task context.
    #[doc(alias = "CPU_DEAD")]
    #[doc(alias = "CPU_UP_CANCELED")]
    pub dead: fn(CpuId),
}

impl CpuCallbacks {
    /// Callbacks that do nothing; fill in what is needed with `..`.
    pub const NONE: Self = Self {
        name: "",
        prepare: |_| Ok(()),
        starting: |_| (),
        dying: |_| (),
        dead: |_| (),
    };
}

/// How many callbacks there can be.
pub(crate) const CALLBACKS: usize = 16;

/// Those that are registered; slots fill up from the first.
#[derive(Debug)]
pub(crate) struct Callbacks([AtomicPtr<CpuCallbacks>; CALLBACKS]);

impl Callbacks {
    loom_const_fn! {
        /// None.
        pub(crate) fn new() -> Self {
            #[cfg(not(loom))]
            let slots = [const { AtomicPtr::new(ptr::null_mut()) }; CALLBACKS];
            #[cfg(loom)]
            let slots = core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut()));
            Self(slots)
        }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &'static CpuCallbacks> {
        self.0.iter().filter_map(|slot| {
            // ORDERING: Acquire — the callbacks were written before they were registered (E17).
            let callbacks = slot.load(ord!("e17_callbacks_relaxed", Acquire));
            // SAFETY: only `register` stores here, from `&'static`.
            (!callbacks.is_null()).then(|| unsafe { &*callbacks.cast_const() })
        })
    }
}

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Registers callbacks for CPUs that come and go from now on.
    ///
    /// # Errors
    /// `TooManyCallbacks` when all 16 slots are taken.
    #[doc(alias = "register_cpu_notifier")]
    pub fn register(&self, callbacks: &'static CpuCallbacks) -> Result<(), HotplugError> {
        let new = ptr::from_ref(callbacks).cast_mut();
        let slot = self.hotplug.callbacks.0.iter().find(|slot| {
            // ORDERING: Release — publishes the callbacks; pairs with the Acquire of `iter` (E17).
            slot.compare_exchange(
                ptr::null_mut(),
                new,
                ord!("e17_register_relaxed", Release),
                Ordering::Relaxed,
            )
            .is_ok()
        });
        slot.map(|_| ()).ok_or(HotplugError::TooManyCallbacks)
    }

    /// On the new CPU, interrupts off: it starts.
    pub(crate) fn run_starting(&self, me: CpuId) {
        let all = self.hotplug.callbacks.iter();
        all.for_each(|callbacks| self.contained(me, callbacks.starting));
    }

    /// On the leaving CPU, interrupts off: it dies.
    pub(crate) fn run_dying(&self, me: CpuId) {
        let all = self.hotplug.callbacks.iter();
        all.for_each(|callbacks| self.contained(me, callbacks.dying));
    }

    /// Undoes `prepare` for the first `prepared` callbacks, in reverse order.
    pub(crate) fn run_dead(&self, cpu: CpuId, prepared: usize) {
        let registered = self.hotplug.callbacks.iter().count();
        self.hotplug
            .callbacks
            .iter()
            .rev()
            .skip(registered.saturating_sub(prepared))
            .for_each(|callbacks| self.contained(cpu, callbacks.dead));
    }

    /// Runs a callback that can refuse nothing; its panic is reported.
    fn contained(&self, cpu: CpuId, callback: fn(CpuId)) {
        if let Err(panic) = self.platform.catch(|| callback(cpu)) {
            self.platform.report_panic(cpu, panic);
        }
    }
}
