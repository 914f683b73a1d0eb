//! Tickets: redeemed, polled, awaited, dropped and forgotten.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use smpcall_hosted::{CallError, CpuId, Machine, TicketPool, TicketSlot};

#[path = "support/bed.rs"]
mod bed;

use bed::Bed;

const CPU1: CpuId = CpuId::new(1);

/// Unparks a thread, and counts.
struct Unpark(Thread, AtomicUsize);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::AcqRel);
        self.0.unpark();
    }
}

/// Runs a future on this thread; answers its output, and how often it was woken.
fn block_on<F: Future>(future: F) -> (F::Output, usize) {
    let mut future = pin!(future);
    let unpark = Arc::new(Unpark(thread::current(), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&unpark));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return (output, unpark.1.load(Ordering::Acquire));
        }
        thread::park_timeout(Duration::from_secs(60));
    }
}

#[test]
fn a_ticket_gives_the_result_and_its_slot_is_free_again() {
    let bed = Bed::new(2);
    let slot = pin!(TicketSlot::<String>::new());
    let slot = slot.into_ref();
    for number in 0..100 {
        let ticket = bed.submit(CPU1, slot, move || format!("number {number}"));
        assert!(!slot.is_free());
        assert_eq!(
            bed.redeem(ticket.unwrap()).unwrap(),
            format!("number {number}")
        );
        assert!(slot.is_free());
    }
}

#[test]
fn tickets_keep_the_order_of_posts() {
    let bed = Bed::new(2);
    static ORDER: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    let slot = pin!(TicketSlot::<()>::new());
    let slot = slot.into_ref();
    for round in 0..50 {
        bed.post(CPU1, move || ORDER.lock().unwrap().push(3 * round))
            .unwrap();
        let ticket = bed.submit(CPU1, slot, move || {
            ORDER.lock().unwrap().push(3 * round + 1);
        });
        bed.post(CPU1, move || ORDER.lock().unwrap().push(3 * round + 2))
            .unwrap();
        bed.redeem(ticket.unwrap()).unwrap();
    }
    bed.flush(CPU1).unwrap();
    assert_eq!(*ORDER.lock().unwrap(), (0..150).collect::<Vec<u32>>());
}

#[test]
fn a_busy_slot_and_an_offline_cpu_hand_the_closure_back() {
    let bed = Bed::new(2);
    let slot = pin!(TicketSlot::<u32>::new());
    let slot = slot.into_ref();
    let ticket = bed.submit(CPU1, slot, || 1).unwrap();
    let refused = bed.submit(CPU1, slot, || 2).unwrap_err();
    assert_eq!((refused.error, (refused.closure)()), (CallError::Busy, 2));
    assert_eq!(bed.redeem(ticket).unwrap(), 1);
    bed.cpu_down(CPU1).unwrap();
    let refused = bed.submit(CPU1, slot, || 3).unwrap_err();
    assert_eq!(refused.error, CallError::Offline { cpu: CPU1 });
    assert!(slot.is_free());
    let refused = bed.submit(CpuId::new(9), slot, || 3).unwrap_err();
    assert!(matches!(refused.error, CallError::NoSuchCpu { .. }));
}

#[test]
fn on_the_calling_cpu_it_runs_inline_and_a_handler_cannot_redeem() {
    let bed = Bed::new(2);
    let job = bed.on(1, |machine| {
        let slot = pin!(TicketSlot::<bool>::new());
        let ticket = machine.submit(CPU1, slot.into_ref(), || true).unwrap();
        assert!(ticket.is_done());
        let inner = || {
            let slot = pin!(TicketSlot::<u32>::new());
            let ticket = machine
                .submit(CpuId::new(0), slot.into_ref(), || 5)
                .unwrap();
            let refused = machine.redeem(ticket).map_err(|refused| {
                // The handler cannot wait: neither may the slot's drop.
                let mut ticket = refused.closure;
                loop {
                    match ticket.try_take() {
                        Ok(result) => break (refused.error, result.unwrap()),
                        Err(again) => ticket = again,
                    }
                }
            });
            refused.map_err(|(error, result)| {
                assert_eq!((error, result), (CallError::InHandler, 5));
            })
        };
        // Done already, or refused.
        let _ = machine.call(CPU1, inner).unwrap();
        machine.redeem(ticket).unwrap()
    });
    assert!(job.join().unwrap());
}

#[test]
fn an_awaited_ticket_is_woken_once() {
    let bed = Bed::new(2);
    let slot = pin!(TicketSlot::<u32>::new());
    let slot = slot.into_ref();
    for round in 0..200 {
        let slow = round % 10 == 0;
        let ticket = bed.submit(CPU1, slot, move || {
            if slow {
                thread::sleep(Duration::from_millis(2));
            }
            round
        });
        let (result, woken) = block_on(ticket.unwrap());
        assert_eq!(result.unwrap(), round);
        assert!(woken <= 1, "woken {woken} times");
        assert!(slot.is_free());
    }
}

/// Polls a task from inside the wake-up, on the CPU that wakes. A wake-up that finds the task being
/// polled leaves that to the one who polls.
struct PollsAtOnce {
    task: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    wake_ups: AtomicUsize,
}

impl Wake for PollsAtOnce {
    fn wake(self: Arc<Self>) {
        if self.wake_ups.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        let waker = Waker::from(Arc::clone(&self));
        loop {
            let seen = self.wake_ups.load(Ordering::Acquire);
            let mut task = self.task.lock().unwrap();
            let mut context = Context::from_waker(&waker);
            if task
                .as_mut()
                .is_some_and(|task| task.as_mut().poll(&mut context).is_ready())
            {
                *task = None;
            }
            drop(task);
            if self.wake_ups.fetch_sub(seen, Ordering::AcqRel) == seen {
                return;
            }
        }
    }
}

#[test]
fn who_is_woken_may_use_the_slot_at_once() {
    let machine: &'static Machine =
        Box::leak(Box::new(Machine::builder().count(2).boot().unwrap()));
    let slot: Pin<&'static TicketSlot<usize>> =
        Pin::static_ref(Box::leak(Box::new(TicketSlot::new())));
    static SUM: AtomicUsize = AtomicUsize::new(0);
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    let task = async move {
        for number in 1..=100 {
            // From the wake-up on CPU 1 the next call runs on CPU 0, and back.
            let target = CpuId::new(number as u32 % 2);
            let ticket = machine.submit(target, slot, move || number).unwrap();
            SUM.fetch_add(ticket.await.unwrap(), Ordering::AcqRel);
        }
        ENDED.store(1, Ordering::Release);
    };
    let polls_at_once = PollsAtOnce {
        task: Mutex::new(Some(Box::pin(task))),
        wake_ups: AtomicUsize::new(0),
    };
    Arc::new(polls_at_once).wake();
    let started = std::time::Instant::now();
    while ENDED.load(Ordering::Acquire) == 0 {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "a wake-up was lost"
        );
        thread::yield_now();
    }
    assert_eq!(SUM.load(Ordering::Acquire), 5050);
}

/// Counts how many of its kind are alive.
struct Counted(&'static AtomicUsize);

impl Counted {
    fn new(alive: &'static AtomicUsize) -> Self {
        alive.fetch_add(1, Ordering::AcqRel);
        Self(alive)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[test]
fn a_dropped_ticket_lets_the_call_run_and_the_result_go() {
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    static RAN: AtomicUsize = AtomicUsize::new(0);
    let bed = Bed::new(2);
    let slot = pin!(TicketSlot::<Counted>::new());
    let slot = slot.into_ref();
    for round in 0..300 {
        let mut ticket = Some(loop {
            let run = || {
                RAN.fetch_add(1, Ordering::AcqRel);
                Counted::new(&ALIVE)
            };
            match bed.submit(CPU1, slot, run) {
                Ok(ticket) => break ticket,
                Err(busy) => assert_eq!(busy.error, CallError::Busy),
            }
        });
        let mut context = Context::from_waker(Waker::noop());
        if round % 2 == 0 {
            let _ = Pin::new(ticket.as_mut().unwrap())
                .poll(&mut context)
                .map(drop);
        }
        if round % 3 == 0 {
            bed.flush(CPU1).unwrap();
        }
        drop(ticket);
    }
    bed.flush(CPU1).unwrap();
    assert!(slot.is_free());
    assert_eq!(RAN.load(Ordering::Acquire), 300);
    assert_eq!(ALIVE.load(Ordering::Acquire), 0);
}

#[test]
fn a_forgotten_ticket_keeps_its_slot_busy_until_the_slot_goes() {
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    let bed = Bed::new(2);
    for listens in [true, false] {
        let slot = Box::pin(TicketSlot::<Counted>::new());
        let slow = || {
            thread::sleep(Duration::from_millis(5));
            Counted::new(&ALIVE)
        };
        let mut ticket = bed.submit(CPU1, slot.as_ref(), slow).unwrap();
        if listens {
            let _ = Pin::new(&mut ticket)
                .poll(&mut Context::from_waker(Waker::noop()))
                .map(drop);
        }
        std::mem::forget(ticket);
        assert_eq!(
            bed.submit(CPU1, slot.as_ref(), slow).unwrap_err().error,
            CallError::Busy
        );
        drop(slot);
        assert_eq!(ALIVE.load(Ordering::Acquire), 0);
    }
}

#[test]
fn a_panic_reaches_who_redeems_or_awaits_and_is_reported_if_nobody_does() {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&reports);
    let reporter = move |report: &dyn std::fmt::Display| {
        kept.lock().unwrap().push(report.to_string());
    };
    let bed = Bed::of(Machine::builder().count(2).reporter(reporter));
    let slot = pin!(TicketSlot::<u32>::new());
    let slot = slot.into_ref();
    let panics = || panic!("on purpose");
    let ticket = bed.submit(CPU1, slot, panics).unwrap();
    let redeems = std::panic::AssertUnwindSafe(|| bed.redeem(ticket).map_err(CallError::from));
    let payload = std::panic::catch_unwind(redeems).unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"on purpose"));
    let (awaited, _) = block_on(bed.submit(CPU1, slot, panics).unwrap());
    assert_eq!(
        awaited.unwrap_err().downcast_ref::<&str>(),
        Some(&"on purpose")
    );
    drop(bed.submit(CPU1, slot, panics).unwrap());
    bed.flush(CPU1).unwrap();
    let said = reports.lock().unwrap().join("\n");
    assert_eq!(said.matches("on purpose").count(), 1, "{said}");
    assert_eq!(
        bed.redeem(bed.submit(CPU1, slot, || 3).unwrap()).unwrap(),
        3
    );
}

#[test]
fn a_pool_has_as_many_calls_under_way_as_it_has_slots() {
    let bed = Bed::new(4);
    let pool = pin!(TicketPool::<u32, 8>::new());
    let pool = pool.into_ref();
    let tickets: Vec<_> = (0..8)
        .map(|i| {
            bed.submit_pooled(CpuId::new(i % 4), pool, move || i * i)
                .unwrap()
        })
        .collect();
    let refused = bed.submit_pooled(CPU1, pool, || 0).unwrap_err();
    assert_eq!(refused.error, CallError::Busy);
    let results: Vec<u32> = tickets
        .into_iter()
        .map(|ticket| bed.redeem(ticket).unwrap())
        .collect();
    assert_eq!(results, [0, 1, 4, 9, 16, 25, 36, 49]);
    assert_eq!(
        bed.redeem(bed.submit_pooled(CPU1, pool, || 7).unwrap())
            .unwrap(),
        7
    );
}

#[test]
fn tickets_of_a_cpu_that_leaves_are_kept() {
    let bed = Bed::new(2);
    for _ in 0..10 {
        let pool = pin!(TicketPool::<u32, 8>::new());
        let pool = pool.into_ref();
        let tickets: Vec<_> = (0..8)
            .map(|i| bed.submit_pooled(CPU1, pool, move || i).unwrap())
            .collect();
        bed.cpu_down(CPU1).unwrap();
        for (i, ticket) in tickets.into_iter().enumerate() {
            assert_eq!(ticket.try_take().unwrap().unwrap() as usize, i);
        }
        bed.cpu_up(CPU1).unwrap();
    }
}
