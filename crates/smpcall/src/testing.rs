//! What the loom tests share: a platform whose CPUs are loom threads, bounded models, plain memory.
//!
//! Loom runs a model again and again, until every order of its threads and every value that a
//! relaxed load may see has been tried; in large models within a bound on preemptions. What it does not try is in
//! `docs/protocol.md`: it takes a read-modify-write for the newest of its word, and a sequentially
//! consistent fence for an edge to every later one.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex};

use crate::cpu::{CpuId, CpuMask};
use crate::error::StartError;
use crate::params::BootParams;
use crate::platform::Platform;
use crate::queue::Context;
use crate::report::Report;
use crate::ring::PostRing;
use crate::smp::Smp;
use crate::sync::{AtomicU32, Ordering, UnsafeCell, fence};

/// Preemptions per execution of a large model, if `LOOM_MAX_PREEMPTIONS` does not say otherwise.
///
/// Each lost wake-up and each double run that the review of the protocol found needs two: one side
/// stopped between its store and its look, the other between its own. Three leave one to spare;
/// four take the suite from twenty seconds to a minute, five to more than four.
const PREEMPTIONS: usize = 3;

/// Checks a model of a few steps, in all executions.
pub(crate) fn model(f: impl Fn() + Sync + Send + 'static) {
    check(None, f);
}

/// Checks a model of three threads or of a whole instance, within the bound.
pub(crate) fn large_model(f: impl Fn() + Sync + Send + 'static) {
    check(Some(PREEMPTIONS), f);
}

/// Checks a model of three CPUs of an instance: two preemptions, the least that a race needs, take a
/// second, and three half a minute.
pub(crate) fn largest_model(f: impl Fn() + Sync + Send + 'static) {
    check(Some(2), f);
}

fn check(preemptions: Option<usize>, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    builder.max_branches = 20_000;
    builder.check(f);
}

/// Memory without atomics: loom reports two uses of it that no edge orders.
pub(crate) struct Plain(UnsafeCell<u32>);

// SAFETY: loom checks each access; that is what it is for.
unsafe impl Sync for Plain {}
// SAFETY: as above.
unsafe impl Send for Plain {}

impl Plain {
    pub(crate) fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    pub(crate) fn set(&self, value: u32) {
        // SAFETY: loom stops the model if anybody else uses it.
        self.0.with_mut(|slot| unsafe { *slot = value });
    }

    pub(crate) fn get(&self) -> u32 {
        // SAFETY: loom stops the model if anybody else writes it.
        self.0.with(|slot| unsafe { *slot })
    }

    pub(crate) fn add(&self, more: u32) {
        self.set(self.get() + more);
    }
}

loom::thread_local! {
    static ME: Cell<Option<u32>> = Cell::new(None);
    static IRQS_OFF: Cell<bool> = Cell::new(false);
}

/// The calling loom thread is this CPU from here on.
pub(crate) fn become_cpu(id: u32) -> CpuId {
    ME.with(|me| me.set(Some(id)));
    CpuId::new(id)
}

/// A fence on all threads, which the kernel makes by interrupting them. In a model one thread posts,
/// and the interrupt arrives at its [`fence_point`]s or after its end.
pub(crate) struct FenceAll {
    asked: AtomicU32,
    answered: AtomicU32,
}

impl FenceAll {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            asked: AtomicU32::new(0),
            answered: AtomicU32::new(0),
        })
    }

    /// The interrupt, if it has been sent.
    fn answer(&self) {
        if self.asked.load(Ordering::Relaxed) != 0 {
            fence(Ordering::SeqCst);
            self.answered.store(1, Ordering::Relaxed);
        }
    }

    /// The thread that posts is through: from here on it is as if it were interrupted at once.
    pub(crate) fn leave(&self) {
        fence(Ordering::SeqCst);
        self.answered.store(1, Ordering::Relaxed);
    }

    fn make(&self) {
        fence(Ordering::SeqCst);
        self.asked.store(1, Ordering::Relaxed);
        while self.answered.load(Ordering::Relaxed) == 0 {
            loom::thread::yield_now();
        }
        fence(Ordering::SeqCst);
    }
}

loom::thread_local! {
    static FENCES: RefCell<Option<Arc<FenceAll>>> = RefCell::new(None);
}

/// The calling loom thread is the one that posts, and takes these fences.
pub(crate) fn take_fences(fences: &Arc<FenceAll>) {
    FENCES.with(|slot| *slot.borrow_mut() = Some(fences.clone()));
}

/// The other side's fence arrives here, if this thread takes any.
pub(crate) fn fence_point() {
    let fences = FENCES.with(|slot| slot.borrow().clone());
    if let Some(fences) = fences {
        fences.answer();
    }
}

/// A platform whose CPUs are loom threads; a kick is heard when the target looks.
pub(crate) struct Loom {
    /// Panics that were reported; not modelled memory.
    pub(crate) panics: Mutex<Vec<(u32, u32)>>,
    /// By CPU, of line 0 alone; empty in models that need none.
    rings: Vec<PostRing>,
    /// In models of a CPU that streams.
    pub(crate) fences: Option<Arc<FenceAll>>,
}

impl Loom {
    pub(crate) fn new() -> Self {
        Self {
            panics: Mutex::new(Vec::new()),
            rings: Vec::new(),
            fences: None,
        }
    }

    /// One whose CPUs post by rings.
    pub(crate) fn with_rings() -> Self {
        Self {
            rings: (0..3).map(|_| PostRing::new()).collect(),
            ..Self::new()
        }
    }

    /// One whose CPUs post by rings and stream.
    pub(crate) fn that_streams() -> Self {
        Self {
            fences: Some(FenceAll::new()),
            ..Self::with_rings()
        }
    }

    /// The context of a CPU whose calls need no area.
    pub(crate) fn context(&self, cpu: u32) -> Context {
        Context {
            platform: core::ptr::from_ref(self).cast(),
            area: core::ptr::null(),
            cpu: CpuId::new(cpu),
        }
    }
}

// SAFETY: 1 — a model gives each CPU to one thread; 2 — calls run where the thread looks, never by
// interrupt; 3 — models do not panic but to fail; 4 — nothing here panics.
unsafe impl Platform for Loom {
    type Panic = u32;
    const WAITERS_SERVE: bool = true;
    // No grace: every turn of a wait costs executions.
    const GRACE_SPINS: u32 = 0;
    const POST_RINGS: bool = true;

    fn current_cpu(&self) -> Option<CpuId> {
        ME.with(|me| me.get()).map(CpuId::new)
    }

    fn irqs_save(&self) -> bool {
        !IRQS_OFF.with(|off| off.replace(true))
    }

    fn irqs_restore(&self, were_on: bool) {
        IRQS_OFF.with(|off| off.set(!were_on));
    }

    fn irqs_enabled(&self) -> bool {
        !IRQS_OFF.with(Cell::get)
    }

    fn send_ipi(&self, _cpu: CpuId) {}

    fn relax(&self, _spins: u32) {
        loom::thread::yield_now();
    }

    fn now_ns(&self) -> u64 {
        0
    }

    fn post_ring(&self, cpu: CpuId, line: usize) -> Option<&PostRing> {
        self.rings.get(cpu.index()).filter(|_| line == 0)
    }

    fn can_fence_all(&self) -> bool {
        self.fences.is_some()
    }

    fn fence_all(&self) {
        if let Some(fences) = &self.fences {
            fences.make();
        }
    }

    fn start_cpu(&self, _cpu: CpuId) -> Result<(), StartError> {
        Ok(())
    }

    fn catch<R>(&self, f: impl FnOnce() -> R) -> Result<R, u32> {
        Ok(f())
    }

    fn resume(&self, panic: u32) -> ! {
        panic!("panic {panic} reached the caller")
    }

    fn report(&self, _report: Report<'_>) {}

    fn report_panic(&self, cpu: CpuId, panic: u32) {
        self.panics.lock().unwrap().push((cpu.get(), panic));
    }

    fn fatal(&self, message: core::fmt::Arguments<'_>) -> ! {
        panic!("{message}")
    }
}

/// A small instance: three CPUs at most, room for one post each.
pub(crate) type Small = Smp<Loom, 1, 1>;

/// A small instance with these CPUs online; the model's threads become them.
pub(crate) fn small(online: &[u32]) -> Small {
    small_on(Loom::new(), online)
}

/// As [`small`], on a platform that the model chose.
pub(crate) fn small_on(platform: Loom, online: &[u32]) -> Small {
    let smp = Small::new(platform);
    let all = CpuMask::first_n(3);
    // SAFETY: 1, 2 — the models share it in an `Arc` and join their threads.
    unsafe { smp.set_up(&all, &all, &BootParams::unlimited(3)) };
    online.iter().for_each(|&cpu| {
        smp.open_cpu(CpuId::new(cpu));
    });
    smp
}
