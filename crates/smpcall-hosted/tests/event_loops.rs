//! Attached threads that sleep in an event loop: the descriptor is readable when it should be and only
//! then, and epoll, mio and tokio wake for it. What a loop does is counted, not timed.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smpcall_hosted::{Attached, CpuId, Machine};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[expect(dead_code, reason = "no CPU here has a thread of the machine's")]
#[path = "support/bed.rs"]
mod bed;

use bed::Bed;

const CPU0: CpuId = CpuId::new(0);
const CPU1: CpuId = CpuId::new(1);

/// No single wait of these tests takes as long.
const LIMIT: Duration = Duration::from_secs(60);
/// Calls of each kind to a loop.
const CALLS: u32 = 200;

fn counter() -> &'static AtomicU32 {
    Box::leak(Box::default())
}

fn empty(cpus: usize) -> Bed {
    let builder = Machine::builder().count(cpus).only_attached();
    Bed::of(builder.reporter(|report| bed::log(report)))
}

/// Is the descriptor readable now?
fn is_readable(here: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(here, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).expect("poll") > 0
}

/// How often a loop has turned, and whether it shall end.
struct Turns {
    turns: AtomicU32,
    stop: AtomicBool,
    ready: Barrier,
}

impl Turns {
    fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    fn goes_on(&self, here: &Attached) -> bool {
        here.is_online() && !self.stop.load(Ordering::Acquire)
    }
}

/// Runs `event_loop` as CPU 1, sends it calls of every kind, and checks that it slept in between.
fn check_loop(event_loop: impl Fn(Attached, &Turns) + Sync) {
    let bed = empty(2);
    let turns = Turns {
        turns: AtomicU32::new(0),
        stop: AtomicBool::new(false),
        ready: Barrier::new(2),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let here = bed.attach(CPU1).expect("nobody else is CPU 1");
            turns.ready.wait();
            event_loop(here, &turns);
        });
        turns.ready.wait();
        send_calls(&bed);
        // From a CPU as well, whose calls go by mailbox.
        let here = bed.attach(CPU0).expect("nobody else is CPU 0");
        send_calls(&bed);
        here.detach();
        turns.stop.store(true, Ordering::Release);
        bed.nudge(CPU1)
            .expect("it is online until it sees the stop");
    });
    let signals = bed.platform().signals();
    let turned = u64::from(turns.turns.load(Ordering::Relaxed));
    // A signal wakes it once, perhaps once more when it was written late; a few turns begin and end it.
    assert!(
        turned <= 2 * signals + 8,
        "the loop turned {turned} times for {signals} signals: it does not sleep"
    );
}

/// Calls, posts, tasks and jobs to CPU 1, each checked.
fn send_calls(bed: &Bed) {
    let ran = counter();
    for n in 0..CALLS {
        assert_eq!(bed.call(CPU1, || n + 1).unwrap(), n + 1);
        let count = || {
            ran.fetch_add(1, Ordering::Relaxed);
        };
        bed.post(CPU1, count).unwrap();
        bed.flush(CPU1).unwrap();
        assert_eq!(ran.load(Ordering::Relaxed), n + 1);
        if n % 10 == 0 {
            let task = bed.run_on_cpu(CPU1, || bed.current_cpu());
            assert_eq!(task.unwrap(), Some(CPU1));
        }
    }
}

#[test]
fn epoll_wakes_an_attached_thread() {
    check_loop(|here, turns| {
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("epoll");
        epoll::add(&epoll, &here, EventData::new_u64(7), EventFlags::IN).expect("added");
        let limit = Timespec {
            tv_sec: LIMIT.as_secs() as i64,
            tv_nsec: 0,
        };
        while turns.goes_on(&here) {
            turns.turn();
            if here.prepare_to_sleep() {
                let mut events = Vec::with_capacity(4);
                let spare = rustix::buffer::spare_capacity(&mut events);
                let woken = epoll::wait(&epoll, spare, Some(&limit)).expect("epoll");
                assert!(woken > 0, "nothing came in {LIMIT:?}");
                assert_eq!(events[0].data.u64(), 7);
            }
            here.serve();
        }
    });
}

#[test]
fn edge_triggered_epoll_wakes_an_attached_thread() {
    check_loop(|here, turns| {
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("epoll");
        let edges = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &here, EventData::new_u64(7), edges).expect("added");
        let limit = Timespec {
            tv_sec: LIMIT.as_secs() as i64,
            tv_nsec: 0,
        };
        while turns.goes_on(&here) {
            turns.turn();
            if here.prepare_to_sleep() {
                let mut events = Vec::with_capacity(4);
                let spare = rustix::buffer::spare_capacity(&mut events);
                let woken = epoll::wait(&epoll, spare, Some(&limit)).expect("epoll");
                assert!(woken > 0, "nothing came in {LIMIT:?}");
            }
            here.serve();
        }
    });
}

#[test]
fn mio_wakes_an_attached_thread() {
    check_loop(|here, turns| {
        let mut poll = mio::Poll::new().expect("mio");
        let mut events = mio::Events::with_capacity(4);
        let token = mio::Token(7);
        let descriptor = here.as_raw_fd();
        let mut source = mio::unix::SourceFd(&descriptor);
        let registry = poll.registry();
        registry
            .register(&mut source, token, mio::Interest::READABLE)
            .expect("registered");
        while turns.goes_on(&here) {
            turns.turn();
            if here.prepare_to_sleep() {
                poll.poll(&mut events, Some(LIMIT)).expect("mio");
                let event = events.iter().next().expect("something came");
                assert!(event.token() == token && event.is_readable());
            }
            here.serve();
        }
    });
}

/// The thread's descriptor in the runtime's own epoll.
fn register(here: Attached) -> AsyncFd<Attached> {
    // SAFETY: an `Attached` answers one descriptor, which is open as long as it lives.
    let doorbell = unsafe { AsyncFd::register_with_interest(here, Interest::READABLE) };
    doorbell.expect("registered")
}

#[test]
fn tokio_wakes_an_attached_thread() {
    check_loop(|here, turns| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().expect("tokio");
        runtime.block_on(async {
            let doorbell = register(here);
            let here = doorbell.get_ref();
            while turns.goes_on(here) {
                turns.turn();
                if here.prepare_to_sleep() {
                    let ready = tokio::time::timeout(LIMIT, doorbell.readable()).await;
                    ready.expect("something came").expect("tokio").clear_ready();
                }
                here.serve();
            }
        });
    });
}

#[test]
fn a_runtime_serves_calls_between_its_own_tasks() {
    let bed = Arc::new(empty(2));
    let ready = Barrier::new(2);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().expect("tokio");
            let local = tokio::task::LocalSet::new();
            let (end, ended) = tokio::sync::oneshot::channel::<u32>();
            let end = std::sync::Mutex::new(Some(end));
            let here = bed.attach(CPU1).expect("nobody else is CPU 1");
            local.block_on(&runtime, async {
                let doorbell = register(here);
                tokio::task::spawn_local(async move {
                    let here = doorbell.get_ref();
                    while here.is_online() {
                        if here.prepare_to_sleep() {
                            doorbell.readable().await.expect("tokio").clear_ready();
                        }
                        here.serve();
                        tokio::task::yield_now().await;
                    }
                });
                // Another task of this thread, which is never idle.
                tokio::task::spawn_local(async {
                    loop {
                        tokio::task::yield_now().await;
                    }
                });
                END.with(|slot| slot.replace(end.into_inner().expect("not poisoned")));
                ready.wait();
                ended.await.expect("sent by a called function")
            })
        });
        ready.wait();
        for n in 0..CALLS {
            assert_eq!(bed.call(CPU1, || n).unwrap(), n);
        }
        // A called function wakes a task of the loop that it interrupted.
        let sends = || END.with(|slot| slot.take().map(|end| end.send(7)));
        assert_eq!(bed.call(CPU1, sends).unwrap(), Some(Ok(())));
        assert_eq!(server.join().unwrap(), 7);
    });
}

thread_local! {
    /// Where a called function finds what belongs to the thread.
    static END: std::cell::RefCell<Option<tokio::sync::oneshot::Sender<u32>>> =
        const { std::cell::RefCell::new(None) };
}

#[test]
fn the_descriptor_is_readable_when_calls_wait_for_a_thread_that_prepared_and_only_then() {
    let bed = empty(1);
    let ran = counter();
    let here = bed.attach(CPU0).unwrap();
    let machine: &Machine = &bed;
    let posts = || {
        std::thread::scope(|scope| {
            let count = || {
                ran.fetch_add(1, Ordering::Relaxed);
            };
            scope.spawn(move || machine.post(CPU0, count).unwrap());
        });
    };
    let mut expected = 0;
    for _ in 0..20 {
        assert!(!is_readable(&here), "nothing was posted");
        posts();
        assert!(!is_readable(&here), "the thread is awake");
        assert!(!here.prepare_to_sleep(), "something was there first");
        assert!(here.serve() || ran.load(Ordering::Relaxed) == expected + 1);
        assert!(here.prepare_to_sleep() && !is_readable(&here));
        posts();
        posts();
        assert!(is_readable(&here));
        assert_eq!(
            ran.load(Ordering::Relaxed),
            expected + 1,
            "nothing runs by itself"
        );
        assert!(here.serve());
        expected += 3;
        assert_eq!(ran.load(Ordering::Relaxed), expected);
    }
    assert_eq!(
        bed.platform().signals(),
        20,
        "the second post found it rung"
    );
}

#[test]
fn a_thread_that_is_awake_costs_its_callers_no_system_call() {
    let bed = empty(2);
    let (attached, stop) = (Barrier::new(2), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let here = bed.attach(CPU1).unwrap();
            attached.wait();
            // Once armed and awake again, it is as if it had never slept.
            assert!(here.prepare_to_sleep());
            here.serve();
            attached.wait();
            let start = Instant::now();
            while !stop.load(Ordering::Acquire) {
                here.poll();
                assert!(start.elapsed() < LIMIT);
            }
        });
        attached.wait();
        attached.wait();
        for n in 0..1_000 {
            assert_eq!(bed.call(CPU1, || n).unwrap(), n);
        }
        stop.store(true, Ordering::Release);
    });
    let platform = bed.platform();
    assert_eq!((platform.signals(), platform.wakes()), (0, 0));
}

#[test]
fn a_thread_that_prepared_and_then_waits_may_sleep_afterwards() {
    let bed = empty(2);
    let (attached, asleep) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let here = bed.attach(CPU1).unwrap();
            attached.wait();
            assert!(here.prepare_to_sleep());
            // Waits that poll and park, and take what comes meanwhile.
            for n in 0..100 {
                assert_eq!(here.run_on_cpu(CPU0, || n).unwrap(), n);
                assert_eq!(here.call(CPU0, || n).unwrap(), n);
            }
            asleep.wait();
            let start = Instant::now();
            while here.is_online() {
                let mut fds = [PollFd::new(&here, PollFlags::IN)];
                poll(
                    &mut fds,
                    Some(&Timespec {
                        tv_sec: 60,
                        tv_nsec: 0,
                    }),
                )
                .expect("poll");
                assert!(start.elapsed() < LIMIT, "nobody signalled it");
                here.serve();
                while here.is_online() && !here.prepare_to_sleep() {
                    here.serve();
                }
            }
        });
        // Before the other one calls it.
        let here = bed.attach(CPU0).unwrap();
        attached.wait();
        let caller = scope.spawn(|| {
            for n in 0..100 {
                assert_eq!(bed.call(CPU0, || n).unwrap(), n);
            }
            asleep.wait();
            assert_eq!(bed.call(CPU1, || 7).unwrap(), 7);
            bed.cpu_down(CPU1)
        });
        let start = Instant::now();
        while !caller.is_finished() {
            here.sleep(Some(Duration::from_millis(10)));
            here.serve();
            assert!(start.elapsed() < LIMIT);
        }
        caller.join().unwrap().unwrap();
    });
}
