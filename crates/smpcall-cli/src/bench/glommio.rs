//! Glommio: an executor on each of the two CPUs, closures through its channel between executors.
//!
//! Where the kernel refuses io_uring, or the memory that it pins, there are no such rows, and the
//! program says why.

use std::hint::black_box;
use std::time::{Duration, Instant};

use glommio::channels::shared_channel::{
    ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender, new_bounded,
};
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use crate::bench::Contender;
use crate::bench::lab::Lab;
use crate::bench::limits::{SLEEP_GAP, WAKE_UPS};
use crate::bench::ours::{CALLS, RUNS};
use crate::bench::peers::{Job, ROOM};
use crate::{host, stats};

/// How long an executor spins before it sleeps, where it is not to sleep.
const SPINS: Duration = Duration::from_secs(1);
/// Memory for I/O of each executor, in bytes; nothing here reads or writes.
const IO_MEMORY: usize = 64 << 10;

/// All rows; none where io_uring does not work.
pub(crate) fn all() -> Vec<Contender> {
    // On a thread of its own, for an executor changes what its thread is.
    let tried = std::thread::spawn(|| executor(Placement::Unbound, SPINS).map(drop)).join();
    if let Ok(Err(error)) = tried {
        eprintln!("smpcall: no rows of glommio, for io_uring does not work here: {error}");
        return Vec::new();
    }
    let row =
        |name, limit, block: fn(&Lab) -> Vec<f64>| Contender::new(name, "glommio", limit, block);
    vec![
        row("call_polling", "one_line", call_polling),
        row("call_parked", "futex", call_parked),
    ]
}

/// An executor on this thread.
fn executor(placement: Placement, spins: Duration) -> glommio::Result<LocalExecutor, ()> {
    LocalExecutorBuilder::new(placement)
        .spin_before_park(spins)
        .io_memory(IO_MEMORY)
        .make()
}

/// The way there and the way back.
struct There {
    jobs: ConnectedSender<Job>,
    results: ConnectedReceiver<u64>,
}

impl There {
    /// A closure there, its result back.
    async fn call(&self, i: u64) {
        let sent = self
            .jobs
            .send(Some(Box::new(move || black_box(i) + 1)))
            .await;
        assert!(sent.is_ok(), "the receiver is there");
        let answer = self.results.recv().await;
        assert_eq!(answer, Some(i + 1), "the closure's result comes back");
    }
}

fn call_polling(lab: &Lab) -> Vec<f64> {
    with_executors(lab, SPINS, async |there| {
        let mut times = Vec::with_capacity(RUNS);
        for run in 0..RUNS as u64 {
            let start = Instant::now();
            for i in run * CALLS..(run + 1) * CALLS {
                there.call(i).await;
            }
            times.push(start.elapsed().as_nanos() as f64 / CALLS as f64);
        }
        times
    })
}

/// To an executor that sleeps; the caller's does not.
fn call_parked(lab: &Lab) -> Vec<f64> {
    with_executors(lab, Duration::ZERO, async |there| {
        let mut times = Vec::with_capacity(WAKE_UPS);
        for i in 0..WAKE_UPS as u64 {
            lab.spin(SLEEP_GAP);
            let start = Instant::now();
            there.call(i).await;
            times.push(start.elapsed().as_nanos() as f64 - stats::clock_cost_ns());
        }
        times
    })
}

/// Lets the responder's executor run the jobs that come, spinning for so long before it sleeps.
fn with_executors<R>(lab: &Lab, spins: Duration, ask: impl AsyncFnOnce(&There) -> R) -> R {
    let (jobs, todo) = new_bounded::<Job>(ROOM);
    let (done, results) = new_bounded::<u64>(ROOM);
    let here =
        |cpu| Placement::Fixed(host::host_cpu_of(&lab.machine, cpu).unwrap_or_default() as usize);
    let (caller, responder) = (here(lab.caller), here(lab.responder));
    let answer = move |_: &_| made(executor(responder, spins)).run(work(todo, done));
    lab.duet(answer, || {
        made(executor(caller, SPINS)).run(async {
            let (jobs, results) = (jobs.connect().await, results.connect().await);
            let there = There { jobs, results };
            let result = ask(&there).await;
            assert!(there.jobs.send(None).await.is_ok(), "the receiver is there");
            result
        })
    })
}

async fn work(todo: SharedReceiver<Job>, done: SharedSender<u64>) {
    let (todo, done) = (todo.connect().await, done.connect().await);
    while let Some(Some(job)) = todo.recv().await {
        assert!(done.send(job()).await.is_ok(), "the caller waits for it");
    }
}

fn made(executor: glommio::Result<LocalExecutor, ()>) -> LocalExecutor {
    executor.unwrap_or_else(|error| panic!("an executor was made before, and now not: {error}"))
}
