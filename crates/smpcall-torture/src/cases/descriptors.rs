//! Descriptors that their user owns.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use smpcall::{CallError, CpuId, CpuMask, Csd};

use super::case_list;
use crate::again::Again;
use crate::check::{Check, OrFail, ensure, ensure_eq};
use crate::crew::CREW;
use crate::cx::Cx;
use crate::lab::Lab;
use crate::scope::Scope;

case_list! {
    2 Nothing a_posted_descriptor_runs_and_is_free_again,
    2 Nothing a_queued_descriptor_is_busy,
    2 Nothing a_callback_queues_its_own_descriptor_again,
    2 Nothing a_descriptor_posted_by_many_runs_as_often_as_it_was_accepted,
    2 Nothing a_callback_may_end_its_descriptors_life,
    2 Nothing dropping_a_queued_descriptor_waits_until_it_was_taken,
    2 Nothing forgetting_a_free_descriptor_is_harmless,
    1 Nothing a_descriptor_on_the_own_cpu_runs_inline,
    1 Nothing a_refused_descriptor_is_free_again,
    1 Nothing call_csd_runs_once_and_borrows_the_stack,
    2 Nothing call_csd_waits_for_an_earlier_post_of_the_descriptor,
}

/// A descriptor that posts itself: how often still, and where.
struct Chain {
    again: Again,
    left: AtomicU32,
    targets: [CpuId; 2],
    refused: AtomicU32,
}

/// A descriptor's storage that its callback ends.
struct Slot<F> {
    csd: UnsafeCell<MaybeUninit<Csd<F>>>,
    generation: AtomicU32,
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    fn a_posted_descriptor_runs_and_is_free_again(&self) -> Check {
        self.scope((), |s| {
            let csd = pin!(s.csd(|_| ()));
            for n in 1..=100 {
                let target = self.other(n as usize % self.others().len());
                s.post_csd(target, csd.as_ref()).or_fail("post_csd")?;
                self.wait("the descriptor ran", || s.ran() == n)?;
                ensure!(!csd.is_queued(), "the descriptor is queued after it ran");
            }
            Ok(())
        })
    }

    fn a_queued_descriptor_is_busy(&self) -> Check {
        let target = self.other(0);
        self.scope((), |s| {
            let csd = pin!(s.csd(|_| ()));
            self.masked(&CpuMask::of(target), |mask| {
                s.post_csd(target, csd.as_ref()).or_fail("post_csd")?;
                ensure!(csd.is_queued(), "the descriptor is not queued");
                for _ in 0..3 {
                    let busy = s.post_csd(target, csd.as_ref());
                    ensure_eq!(busy, Err(CallError::Busy), "posting it again");
                }
                mask.let_go();
                self.wait("it ran", || s.ran() == 1)?;
                s.post_csd(target, csd.as_ref())
                    .or_fail("posting it after it ran")?;
                self.wait("it ran again", || s.ran() == 2)
            })
        })
    }

    /// The descriptor is free before its function runs (os_anchors 5.3, 3).
    fn a_callback_queues_its_own_descriptor_again(&self) -> Check {
        let first = self.other(0);
        let second = self.others().iter().nth(1);
        let chain = Chain {
            again: Again::new(),
            left: AtomicU32::new(200),
            targets: [first, second.unwrap_or(first)],
            refused: AtomicU32::new(0),
        };
        // To the CPU that runs it, it would run inline, over and over: a single target ends it.
        let wanted = if second.is_some() { 201 } else { 1 };
        self.scope(chain, |s| {
            let csd = pin!(s.csd(Self::run_again));
            s.state.again.arm(self.smp(), csd.as_ref());
            s.post_csd(first, csd.as_ref()).or_fail("post_csd")?;
            // ORDERING: Relaxed — `ran` orders it, or it ends the wait.
            let refused = || s.state.refused.load(Ordering::Relaxed);
            let ended = || s.ran() >= wanted || refused() > 0;
            self.wait("the descriptor ended its chain", ended)?;
            ensure_eq!(refused(), 0, "posts of itself that were refused");
            ensure_eq!(s.ran(), wanted, "runs of a descriptor that posts itself");
            Ok(())
        })
    }

    /// The function of a descriptor that posts itself, to and fro between two CPUs.
    fn run_again(s: &Scope<L, Chain, W, D>) {
        let Chain {
            again,
            left,
            targets,
            refused,
        } = &s.state;
        let here = s.smp().current_cpu();
        let Some(next) = targets.iter().find(|&&cpu| Some(cpu) != here) else {
            return;
        };
        // ORDERING: Relaxed — one thread of control: each run is posted by the one before.
        let more = left.load(Ordering::Relaxed);
        if more == 0 {
            return;
        }
        left.store(more - 1, Ordering::Relaxed);
        // SAFETY: 1 — armed with this instance; 2 — the case waits for the last run before the
        // descriptor goes.
        let post = || unsafe { again.post(s.smp(), *next) };
        let posted = s.hand_out(post, |result| u64::from(result.is_ok()));
        refused.fetch_add(u32::from(posted.is_err()), Ordering::Relaxed);
    }

    /// Several CPUs post one descriptor to one target: what was accepted runs, nothing else.
    fn a_descriptor_posted_by_many_runs_as_often_as_it_was_accepted(&self) -> Check {
        let target = self.other(0);
        let sources = self.some_cpus(CREW).and_not(&CpuMask::of(target));
        self.scope((), |s| {
            let csd = pin!(s.csd(|_| ()));
            let csd = csd.as_ref();
            let accepted = AtomicU64::new(0);
            self.together(&sources, |_| {
                for _ in 0..300 {
                    match s.post_csd(target, csd) {
                        // ORDERING: Relaxed — the crew's end orders it.
                        Ok(()) => {
                            accepted.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => ensure_eq!(error, CallError::Busy, "the refusal"),
                    }
                }
                Ok(())
            })?;
            let accepted = accepted.load(Ordering::Relaxed);
            self.wait("what was accepted ran", || s.ran() >= accepted)?;
            self.smp().flush(target).or_fail("flush")?;
            ensure_eq!(s.ran(), accepted, "runs of the descriptor");
            Ok(())
        })
    }

    /// The target is done with a descriptor before its function runs, so the function may overwrite
    /// its storage.
    fn a_callback_may_end_its_descriptors_life(&self) -> Check {
        /// The slot's end: fills the storage with rubbish.
        fn end(slot: *const ()) {
            // SAFETY: the slot of the case, which waits for `generation`.
            let slot = unsafe { &*slot.cast::<Slot<fn()>>() };
            // SAFETY: the descriptor has left its queue, and only this function uses the storage.
            unsafe {
                slot.csd
                    .get()
                    .cast::<u8>()
                    .write_bytes(0xa5, size_of::<Csd<fn()>>());
            };
        }
        struct Storage(Slot<fn()>);
        // SAFETY: the post hands the storage to the target, `generation` hands it back.
        unsafe impl Sync for Storage {}
        let storage = Storage(Slot {
            csd: UnsafeCell::new(MaybeUninit::uninit()),
            generation: AtomicU32::new(0),
        });
        self.scope(storage, |s| {
            for n in 1..=100_u32 {
                let slot = s.state.0.csd.get().cast();
                let csd = s.csd(|s: &Scope<L, Storage, W, D>| {
                    end(core::ptr::from_ref(&s.state.0).cast());
                    // ORDERING: Release — hands the storage back.
                    s.state.0.generation.fetch_add(1, Ordering::Release);
                });
                let placed = Self::place(slot, csd);
                s.post_csd(self.other(0), placed).or_fail("post_csd")?;
                // ORDERING: Acquire — the storage is ours again.
                let ended = || s.state.0.generation.load(Ordering::Acquire) == n;
                self.wait("the callback ended its descriptor", ended)?;
            }
            Ok(())
        })
    }

    /// Moves a descriptor into storage that is as large as one of a plain function.
    fn place<'a, F>(slot: *mut Csd<F>, csd: Csd<F>) -> Pin<&'a Csd<F>> {
        const {
            assert!(
                size_of::<Csd<F>>() <= size_of::<Csd<fn()>>(),
                "the storage is too small"
            );
        };
        // SAFETY: the storage is large enough and aligned alike (both begin with pointers), and free.
        unsafe { slot.write(csd) };
        // SAFETY: written just now, and alive until its callback ends it.
        let csd = unsafe { &*slot };
        // SAFETY: never moved, never dropped.
        unsafe { Pin::new_unchecked(csd) }
    }

    fn dropping_a_queued_descriptor_waits_until_it_was_taken(&self) -> Check {
        let target = self.other(0);
        for _ in 0..20 {
            self.scope((), |s| {
                self.masked(&CpuMask::of(target), |mask| {
                    {
                        let csd = pin!(s.csd(|_| ()));
                        s.post_csd(target, csd.as_ref()).or_fail("post_csd")?;
                        mask.let_go_at(self.now() + 100_000);
                    }
                    ensure_eq!(mask.ended(), 1, "masks that had ended after the drop");
                    // The storage is free: whatever is written there now must not matter.
                    core::hint::black_box([0xa5_u8; 256]);
                    Ok(())
                })?;
                self.wait("it ran", || s.ran() == 1)
            })?;
        }
        Ok(())
    }

    fn forgetting_a_free_descriptor_is_harmless(&self) -> Check {
        self.scope((), |s| {
            let csd = pin!(core::mem::ManuallyDrop::new(s.csd(|_| ())));
            // SAFETY: the field of a pinned wrapper; the wrapper is not moved, nor is the field.
            let csd = unsafe { csd.as_ref().map_unchecked(|csd| &**csd) };
            s.post_csd(self.other(0), csd).or_fail("post_csd")?;
            self.wait("it ran", || s.ran() == 1)
        })
    }

    fn a_descriptor_on_the_own_cpu_runs_inline(&self) -> Check {
        self.together(&self.some_cpus(2), |me| {
            self.scope((), |s| {
                let csd = pin!(s.csd(|_| ()));
                for n in 1..=10 {
                    s.post_csd(me, csd.as_ref()).or_fail("post_csd")?;
                    ensure_eq!(s.ran(), n, "runs of a local descriptor");
                    ensure!(!csd.is_queued(), "a local descriptor is queued");
                }
                Ok(())
            })
        })
    }

    fn a_refused_descriptor_is_free_again(&self) -> Check {
        self.scope((), |s| {
            let csd = pin!(s.csd(|_| ()));
            let nowhere = CpuId::new(u32::MAX);
            for _ in 0..3 {
                let refused = s.post_csd(nowhere, csd.as_ref());
                ensure!(
                    matches!(refused, Err(CallError::NoSuchCpu { .. })),
                    "got {refused:?}"
                );
                ensure!(!csd.is_queued(), "a refused descriptor is queued");
                let refused = self.smp().post_task(nowhere, csd.as_ref());
                ensure!(
                    matches!(refused, Err(CallError::NoSuchCpu { .. })),
                    "got {refused:?}"
                );
                ensure!(!csd.is_queued(), "a refused task is queued");
            }
            Ok(())
        })
    }

    fn call_csd_runs_once_and_borrows_the_stack(&self) -> Check {
        let count = AtomicU32::new(0);
        // ORDERING: Relaxed — the call orders it.
        let csd = Csd::new(|| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        for (n, cpu) in (1..).zip(self.online().iter().take(16)) {
            self.smp().call_csd(cpu, &csd).or_fail("call_csd")?;
            ensure_eq!(
                count.load(Ordering::Relaxed),
                n,
                "runs when `call_csd` returned"
            );
            ensure!(!csd.is_queued(), "the descriptor is queued after the call");
        }
        let refused = self.smp().call_csd(CpuId::new(u32::MAX), &csd);
        ensure!(
            matches!(refused, Err(CallError::NoSuchCpu { .. })),
            "got {refused:?}"
        );
        ensure!(!csd.is_queued(), "the descriptor is queued after a refusal");
        Ok(())
    }

    fn call_csd_waits_for_an_earlier_post_of_the_descriptor(&self) -> Check {
        let target = self.other(0);
        self.scope((), |s| {
            let csd = pin!(s.csd(|_| ()));
            for n in 1..=50 {
                s.post_csd(target, csd.as_ref()).or_fail("post_csd")?;
                let call = || self.smp().call_csd(target, &csd);
                s.hand_out(call, |result| u64::from(result.is_ok()))
                    .or_fail("call_csd")?;
                ensure_eq!(
                    s.ran(),
                    2 * n,
                    "runs of a descriptor posted and then called"
                );
            }
            Ok(())
        })
    }
}
