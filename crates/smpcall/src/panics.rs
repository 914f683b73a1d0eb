//! The panic of a broadcast that its caller gets: the lowest CPU's.

use core::marker::PhantomData;

use crate::cpu::CpuId;
use crate::platform::Platform;
use crate::sync::{AtomicU32, Ordering, UnsafeCell, ord};

/// The panic of the lowest CPU, under a lock that is held for a few instructions.
pub(crate) struct PanicSlot<P: Platform> {
    locked: AtomicU32,
    lowest: UnsafeCell<Option<(CpuId, P::Panic)>>,
    _platform: PhantomData<P>,
}

// SAFETY: `locked` guards the cell, and a panic is `Send`.
unsafe impl<P: Platform> Sync for PanicSlot<P> {}

impl<P: Platform> PanicSlot<P> {
    pub(crate) fn new() -> Self {
        Self {
            locked: AtomicU32::new(0),
            lowest: UnsafeCell::new(None),
            _platform: PhantomData,
        }
    }

    /// Keeps the panic if no lower CPU's is kept, and reports the other.
    #[cold]
    pub(crate) fn put(&self, platform: &P, cpu: CpuId, panic: P::Panic) {
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
    pub(crate) fn take(&self) -> Option<P::Panic> {
        // SAFETY: all targets have finished (E13, E5, E2): nobody else looks.
        self.lowest
            .with_mut(|slot| unsafe { (*slot).take() })
            .map(|(_, panic)| panic)
    }
}

#[cfg(all(test, loom))]
mod tests;
