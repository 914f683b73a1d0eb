//! No call allocates: counted on the caller and on every CPU, for each kind of call.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use smpcall_hosted::{CpuId, CpuMask, Csd, Machine};

#[path = "support/bed.rs"]
mod bed;

use bed::Bed;

/// The system's allocator, with a count of what the threads ask for that are being watched.
struct Counting;

static ASKED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    // A thread that ends has no flag any more, and is not watched.
    if WATCHED.try_with(Cell::get).unwrap_or(false) {
        ASKED.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every request goes to the system's allocator as it is; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as our caller promised.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count();
        // SAFETY: as our caller promised.
        unsafe { System.dealloc(memory, layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as our caller promised.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time: the count is everybody's.
static ALONE: Mutex<()> = Mutex::new(());

/// What `f` makes the watched threads ask for.
fn asked(f: impl FnOnce()) -> u64 {
    let before = ASKED.load(Ordering::Relaxed);
    f();
    ASKED.load(Ordering::Relaxed) - before
}

/// A machine of four CPUs that are all watched.
fn watched() -> Bed {
    let bed = Bed::new(4);
    bed.on_each_cpu(|_| WATCHED.set(true)).unwrap();
    bed
}

static DESCRIPTOR: Csd = Csd::new(|| ());
const CPU1: CpuId = CpuId::new(1);
const CPU2: CpuId = CpuId::new(2);

/// A kind of call.
type Kind = (&'static str, fn(&Machine));

/// Waited calls.
const WAITED: &[Kind] = &[
    ("call", |m| m.call(CPU1, || ()).unwrap()),
    ("call oneself", |m| {
        let me = m.current_cpu().unwrap_or(CPU2);
        m.call(me, || ()).unwrap();
    }),
    ("call with more than a line", |m| {
        let words = [1_u64; 64];
        black_box(m.call(CPU1, move || words).unwrap());
    }),
    ("call a CPU that is not there", |m| {
        let nobody = CpuId::new(100);
        assert!(m.call(nobody, || ()).is_err());
    }),
    ("call_any", |m| {
        m.call_any(&CpuMask::of(CPU2), || ()).unwrap();
    }),
    ("call_irqs_off", |m| {
        let mut guard = m.irqs_off();
        m.call_irqs_off(&mut guard, CPU1, || ()).unwrap();
    }),
    ("call_csd", |m| {
        m.call_csd(CPU1, &Csd::new(|| ())).unwrap();
    }),
    ("run_on_cpu", |m| m.run_on_cpu(CPU1, || ()).unwrap()),
    ("call_many", |m| {
        m.call_many(&CpuMask::first_n(3), |_| ()).unwrap();
    }),
    ("call_others", |m| {
        m.call_others(|_| ()).unwrap();
    }),
    ("on_each_cpu", |m| {
        m.on_each_cpu(|_| ()).unwrap();
    }),
    ("on_each_cpu_mask", |m| {
        m.on_each_cpu_mask(&CpuMask::first_n(3), |_| ()).unwrap();
    }),
    ("on_each_cpu_cond", |m| {
        m.on_each_cpu_cond(|cpu| cpu != CPU2, |_| ()).unwrap();
    }),
    ("kick_all_cpus_sync", |m| {
        m.kick_all_cpus_sync().unwrap();
    }),
    ("poll", |m| {
        m.nudge(CPU1).unwrap();
        m.poll();
    }),
];

/// Posted calls.
const POSTED: &[Kind] = &[
    ("post", |m| m.post(CPU1, || ()).unwrap()),
    ("post with three words", |m| {
        let words = [1_u64; 3];
        let post = move || {
            black_box(words);
        };
        m.post(CPU1, post).unwrap();
    }),
    ("post_wait", |m| m.post_wait(CPU1, || ()).unwrap()),
    ("post_any", |m| {
        m.post_any(&CpuMask::of(CPU2), || ()).unwrap();
    }),
    ("post_csd", |m| {
        let csd = pin!(Csd::new(|| ()));
        m.post_csd(CPU1, csd.as_ref()).unwrap();
    }),
    ("post_static_csd", |m| {
        m.post_static_csd(CPU1, &DESCRIPTOR).unwrap();
        m.flush(CPU1).unwrap();
    }),
    ("post_task", |m| {
        m.post_task(CPU1, Pin::static_ref(&DESCRIPTOR)).unwrap();
        m.run_on_cpu(CPU1, || ()).unwrap();
    }),
    ("post_many", |m| {
        m.post_many(&CpuMask::first_n(3), |_| ()).unwrap();
    }),
    ("post_others", |m| {
        m.post_others(|_| ()).unwrap();
    }),
    ("post_each", |m| {
        m.post_each(|_| ()).unwrap();
    }),
    ("post_each_mask", |m| {
        m.post_each_mask(&CpuMask::first_n(3), |_| ()).unwrap();
    }),
    ("post_each_cond", |m| {
        m.post_each_cond(|cpu| cpu != CPU2, |_| ()).unwrap();
    }),
];

/// Makes every kind of call again and again on this thread, and checks that nothing was asked for.
fn check(machine: &Machine) {
    WATCHED.set(true);
    for (name, make) in WAITED.iter().chain(POSTED) {
        // The first one may be what makes a thread's own state.
        make(machine);
        let allocations = asked(|| {
            // No more than a lane has room for, which is then waited for.
            (0..16).for_each(|_| make(machine));
            let all = machine.online_cpus();
            all.iter().for_each(|cpu| machine.flush(cpu).unwrap());
        });
        assert_eq!(allocations, 0, "{name} asked the allocator");
    }
    WATCHED.set(false);
}

#[test]
fn no_call_from_a_foreign_thread_allocates() {
    let _alone = ALONE.lock();
    check(&watched());
}

#[test]
fn no_call_from_a_cpu_allocates() {
    let _alone = ALONE.lock();
    let bed = watched();
    bed.on(0, check).join().unwrap();
}

#[test]
fn the_count_sees_what_a_called_function_asks_for() {
    let _alone = ALONE.lock();
    let bed = watched();
    let boxed = || {
        bed.call(CPU1, || drop(black_box(Box::new(7)))).unwrap();
    };
    assert_eq!(asked(boxed), 2, "there and back");
}
