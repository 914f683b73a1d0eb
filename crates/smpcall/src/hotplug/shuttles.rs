//! Whole machines under shuttle: CPUs that are started and taken down by one thread, while others post, call, wait for
//! tickets and for tasks.
//!
//! Loom tries every order, so its models end at two threads and a step of hotplug. Shuttle runs the whole life
//! of a CPU, from its start to its idle loop, its sleep and its end, in orders that it draws: at random, and by
//! priorities that change at a few points (PCT), which finds what needs few of them. It knows no weak
//! memory; that is loom's part. A CPU that sleeps is asleep until it is woken, so a lost wake-up is a deadlock, which
//! shuttle reports with the schedule that leads there.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use core::pin::pin;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32 as Count, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread::{self, JoinHandle};
use shuttle::{Config, Runner};

use crate::cpu::{CpuId, CpuMask};
use crate::csd::Csd;
use crate::error::{HotplugError, StartError};
use crate::params::BootParams;
use crate::platform::Platform;
use crate::report::Report;
use crate::ring::PostRing;
use crate::smp::Smp;
use crate::sync::AtomicU32;
use crate::ticket::TicketSlot;

const ONE: CpuId = CpuId::new(1);
const TWO: CpuId = CpuId::new(2);
const CPUS: usize = 3;

shuttle::thread_local! {
    static ME: Cell<Option<u32>> = Cell::new(None);
    static IRQS_OFF: Cell<bool> = Cell::new(false);
}

/// A platform whose CPUs are shuttle's threads. Who is busy hears of calls where it looks.
struct Shuttle {
    world: OnceLock<Weak<World>>,
    /// Orders going to sleep and waking, as a kernel's futex does; one for all.
    bed: Mutex<()>,
    woken: Condvar,
    /// The threads that are CPUs, each until it has ended.
    threads: Mutex<Vec<JoinHandle<()>>>,
    alive: [Count; CPUS],
    rings: [[PostRing; 4]; CPUS],
}

/// A machine, and what its functions count.
struct World {
    smp: Smp<Shuttle, 1, 2>,
    ran: Count,
    /// The last number that ran of a source's posts.
    last: Count,
}

// SAFETY: 1 — `start_cpu` lets one thread at a time be each CPU; 2 — calls run where the thread looks; 3 — nothing
// here panics but to fail; 4 — nor do reports.
unsafe impl Platform for Shuttle {
    type Panic = ();
    const WAITERS_SERVE: bool = true;
    const GRACE_SPINS: u32 = 0;
    const STALL_LIMIT_NS: u64 = 0;

    fn current_cpu(&self) -> Option<CpuId> {
        ME.with(Cell::get).map(CpuId::new)
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

    fn park(&self, word: &AtomicU32, value: u32) {
        let mut bed = self.bed.lock().expect("nobody panics");
        while word.load(core::sync::atomic::Ordering::SeqCst) == value {
            bed = self.woken.wait(bed).expect("nobody panics");
        }
    }

    fn wake(&self, _cpu: CpuId, _word: &AtomicU32) {
        drop(self.bed.lock().expect("nobody panics"));
        self.woken.notify_all();
    }

    fn post_ring(&self, cpu: CpuId, line: usize) -> Option<&PostRing> {
        self.rings[cpu.index()].get(line)
    }

    fn can_fence_all(&self) -> bool {
        true
    }

    // Every access is in one order here.
    fn fence_all(&self) {}

    fn polls_when_busy(&self) -> bool {
        true
    }

    fn relax(&self, _spins: u32) {
        thread::yield_now();
    }

    fn now_ns(&self) -> u64 {
        0
    }

    fn start_cpu(&self, cpu: CpuId) -> Result<(), StartError> {
        let world = self.world.get().and_then(Weak::upgrade);
        let world = world.ok_or(StartError::NoSuchCpu)?;
        assert_eq!(
            self.alive[cpu.index()].swap(1, Relaxed),
            0,
            "CPU {cpu} twice"
        );
        let thread = thread::spawn(move || live(&world, cpu));
        self.threads.lock().expect("nobody panics").push(thread);
        Ok(())
    }

    fn is_stopped(&self, cpu: CpuId) -> bool {
        self.alive[cpu.index()].load(Relaxed) == 0
    }

    fn catch<R>(&self, f: impl FnOnce() -> R) -> Result<R, ()> {
        Ok(f())
    }

    fn resume(&self, (): ()) -> ! {
        panic!("nothing panicked")
    }

    fn report(&self, report: Report<'_>) {
        panic!("reported: {report}")
    }

    fn report_panic(&self, cpu: CpuId, (): ()) {
        panic!("a panic on CPU {cpu}")
    }

    fn fatal(&self, message: core::fmt::Arguments<'_>) -> ! {
        panic!("{message}")
    }
}

/// The life of a CPU: it arrives, idles, sleeps, does tasks, leaves.
fn live(world: &World, cpu: CpuId) {
    ME.with(|me| me.set(Some(cpu.get())));
    let smp = &world.smp;
    smp.platform().irqs_save();
    let arrived = smp.online_this_cpu();
    smp.platform().irqs_restore(true);
    while arrived && !smp.leave_if_asked() {
        smp.run_tasks();
        smp.idle_enter();
        while !smp.has_tasks() && !smp.is_asked_to_leave() {
            if !smp.idle_poll() {
                smp.idle_park();
            }
        }
        smp.idle_exit();
    }
    ME.with(|me| me.set(None));
    smp.platform().alive[cpu.index()].store(0, Relaxed);
}

impl World {
    /// A machine with these CPUs and CPU 0 online; CPU 0 is the calling thread.
    fn new(others: &[CpuId]) -> Arc<Self> {
        let platform = Shuttle {
            world: OnceLock::new(),
            bed: Mutex::new(()),
            woken: Condvar::new(),
            threads: Mutex::new(Vec::new()),
            alive: [const { Count::new(0) }; CPUS],
            rings: [const { [const { PostRing::new() }; 4] }; CPUS],
        };
        let world = Arc::new(Self {
            smp: Smp::new(platform),
            ran: Count::new(0),
            last: Count::new(0),
        });
        let smp = &world.smp;
        let all = CpuMask::first_n(CPUS);
        // SAFETY: 1, 2 — it stays in its `Arc`, which every thread holds; 3 — it is new.
        unsafe { smp.set_up(&all, &all, &BootParams::unlimited(3)) };
        let _ = smp.platform().world.set(Arc::downgrade(&world));
        let arrive = || {
            ME.with(|me| me.set(Some(0)));
            let were_on = smp.platform().irqs_save();
            assert!(smp.online_this_cpu());
            smp.platform().irqs_restore(were_on);
            Ok(())
        };
        smp.cpu_up_by(CpuId::new(0), arrive).expect("it is here");
        let start = |&cpu: &CpuId| smp.cpu_up(cpu).expect("it comes up");
        others.iter().for_each(start);
        world
    }

    /// A thread that is no CPU.
    fn beside<R: Send + 'static>(
        self: &Arc<Self>,
        what: impl FnOnce(&Self) -> R + Send + 'static,
    ) -> JoinHandle<R> {
        let world = Arc::clone(self);
        thread::spawn(move || what(&world))
    }

    /// Takes a CPU down and brings it back.
    fn cycle(&self, cpu: CpuId) {
        self.smp.cpu_down(cpu).expect("it leaves");
        self.smp.cpu_up(cpu).expect("it comes back");
    }

    /// What a posted function does, in a word that may be sent.
    fn count(&self) -> impl Fn() + Copy + Send + 'static {
        let at = core::ptr::from_ref(self).expose_provenance();
        move || {
            // SAFETY: whoever runs it holds the world.
            let world = unsafe { &*core::ptr::with_exposed_provenance::<Self>(at) };
            world.ran.fetch_add(1, Relaxed);
        }
    }

    /// A numbered one, which must come behind those before it.
    fn see(&self, number: u32) -> impl Fn() + Copy + Send + 'static {
        let (at, count) = (core::ptr::from_ref(self).expose_provenance(), self.count());
        move || {
            // SAFETY: whoever runs it holds the world.
            let world = unsafe { &*core::ptr::with_exposed_provenance::<Self>(at) };
            let before = world.last.swap(number, Relaxed);
            assert!(before < number, "{number} ran behind {before}");
            count();
        }
    }

    /// All that was accepted has run, and no more; then every CPU ends.
    fn ends_with(&self, accepted: u32) {
        for cpu in &self.smp.online_cpus() {
            self.smp.flush(cpu).expect("it is online");
        }
        for cpu in self.smp.online_cpus().iter().skip(1) {
            self.smp.cpu_down(cpu).expect("it leaves");
        }
        assert_eq!(
            self.ran.load(Relaxed),
            accepted,
            "runs of what was accepted"
        );
        let threads = core::mem::take(&mut *self.smp.platform().threads.lock().expect("held"));
        threads.into_iter().for_each(|it| it.join().expect("ends"));
    }
}

/// Runs a model in so many orders of each kind; `SMPCALL_SHUTTLE` says how many.
fn check(model: impl Fn() + Copy + Send + Sync + 'static) {
    let asked = std::env::var("SMPCALL_SHUTTLE").ok();
    let orders = asked.map_or(ORDERS, |n| n.parse().expect("SMPCALL_SHUTTLE is a number"));
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    let runs = Runner::new(RandomScheduler::new(orders), config.clone()).run(model);
    let more = Runner::new(PctScheduler::new(3, orders), config).run(model);
    println!("{} orders", runs + more);
}

/// Orders of each kind, unless told otherwise: seconds in all.
const ORDERS: usize = 500;

#[test]
fn posts_and_tickets_to_a_cpu_that_goes_and_comes_run_if_and_only_if_accepted() {
    check(|| {
        let world = World::new(&[ONE]);
        let mover = world.beside(|world| world.cycle(ONE));
        let poster = world.beside(|world| {
            let posts = (0..2).map(|_| world.smp.post(ONE, world.count()).is_ok());
            posts.map(u32::from).sum::<u32>()
        });
        let slot = pin!(TicketSlot::<Shuttle, u32>::new());
        let count = world.count();
        let ticket = world.smp.submit(ONE, slot.as_ref(), move || {
            count();
            7
        });
        let mut accepted = u32::from(ticket.is_ok());
        if let Ok(ticket) = ticket {
            let answer = world.smp.redeem(ticket).map_err(|refused| refused.error);
            assert_eq!(answer, Ok(7));
        }
        accepted += poster.join().expect("ends");
        mover.join().expect("ends");
        world.ends_with(accepted);
    });
}

/// By a ring of two places, by the queue where it is full, and by a new lease when the CPU is back.
#[test]
fn posts_of_a_cpu_to_one_that_goes_and_comes_run_in_their_order_if_and_only_if_accepted() {
    check(|| {
        let world = World::new(&[ONE]);
        let mover = world.beside(|world| world.cycle(ONE));
        let posts = (1..=5).map(|n| world.smp.post(ONE, world.see(n)).is_ok());
        let accepted = posts.map(u32::from).sum();
        mover.join().expect("ends");
        world.ends_with(accepted);
    });
}

#[test]
fn broadcasts_while_two_cpus_go_and_come_answer_exactly_who_ran() {
    check(|| {
        let world = World::new(&[ONE, TWO]);
        let movers = [ONE, TWO].map(|cpu| world.beside(move |world| world.cycle(cpu)));
        let count = world.count();
        let mut accepted = 0;
        for _ in 0..2 {
            let set = world.smp.on_each_cpu(|_| count());
            accepted += set.map_err(|refused| refused.error).expect("waits").len() as u32;
        }
        movers
            .into_iter()
            .for_each(|mover| mover.join().expect("ends"));
        world.ends_with(accepted);
    });
}

#[test]
fn tasks_for_a_cpu_that_goes_and_comes_run_if_and_only_if_accepted() {
    check(|| {
        let world = World::new(&[ONE]);
        let mover = world.beside(|world| world.cycle(ONE));
        let waiter = world.beside(|world| {
            let call = world.smp.run_on_cpu(ONE, world.count());
            u32::from(call.is_ok())
        });
        let call = world.smp.run_on_cpu(ONE, world.count());
        let accepted = u32::from(call.is_ok()) + waiter.join().expect("ends");
        mover.join().expect("ends");
        world.ends_with(accepted);
    });
}

#[test]
fn a_descriptor_that_is_dropped_while_its_cpu_leaves_has_run_if_and_only_if_accepted() {
    check(|| {
        let world = World::new(&[ONE]);
        let mover = world.beside(|world| world.cycle(ONE));
        let poster = world.beside(|world| {
            let csd = pin!(Csd::new(world.count()));
            let posted = world.smp.post_csd(ONE, csd.as_ref());
            u32::from(posted.is_ok())
        });
        let call = world.smp.call(ONE, world.count());
        let accepted = u32::from(call.is_ok()) + poster.join().expect("ends");
        mover.join().expect("ends");
        world.ends_with(accepted);
    });
}

#[test]
fn two_that_take_the_same_cpu_down_and_up_agree() {
    check(|| {
        let world = World::new(&[ONE]);
        let movers = [(); 2].map(|()| {
            world.beside(|world| {
                let down = world.smp.cpu_down(ONE);
                let up = world.smp.cpu_up(ONE);
                let fits = |error: HotplugError| {
                    let both = [HotplugError::AlreadyOnline, HotplugError::AlreadyOffline];
                    assert!(both.contains(&error), "{error}");
                };
                down.err().into_iter().chain(up.err()).for_each(fits);
            })
        });
        let posted = world.smp.post(ONE, world.count());
        movers
            .into_iter()
            .for_each(|mover| mover.join().expect("ends"));
        assert!(world.smp.is_online(ONE), "the last one brought it up");
        world.ends_with(u32::from(posted.is_ok()));
    });
}
