//! Other ways to run a closure on another thread and get its result, on equal terms.
//!
//! The worker is the responder's thread, pinned, and spins while it has nothing to do; a boxed
//! closure goes there and its result comes back through a second channel that is made once; the
//! caller spins for it. Pools bring their own threads, pinned to the same two CPUs. For the parked
//! row the worker blocks in the channel's own way.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use rustix::thread::CpuSet;

use crate::Failure;
use crate::bench::Contender;
use crate::bench::lab::{Lab, Line, time_runs};
use crate::bench::limits::{POST_RUNS, POSTS, SLEEP_GAP, WAKE_UPS, time_cold};
use crate::bench::ours::{CALLS, RUNS};
use crate::host;

/// A closure on its way; `None` ends the worker.
type Job = Option<Box<dyn FnOnce() -> u64 + Send>>;

/// Messages that fit a bounded channel.
const ROOM: usize = 64;

/// What the worker does while there is nothing to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Worker {
    Spins,
    /// In the channel's own way, if it has one.
    Parks,
}

/// One direction of a channel library.
trait Way {
    type Sender<T: Send + 'static>: Send + 'static;
    type Receiver<T: Send + 'static>: Send + 'static;
    fn make<T: Send + 'static>() -> (Self::Sender<T>, Self::Receiver<T>);
    /// Sends; spins while there is no room.
    fn send<T: Send + 'static>(sender: &mut Self::Sender<T>, value: T);
    /// Takes what is there.
    fn poll<T: Send + 'static>(receiver: &mut Self::Receiver<T>) -> Option<T>;
    /// Blocks until something is there; `None` where the library cannot.
    fn block<T: Send + 'static>(receiver: &mut Self::Receiver<T>) -> Option<T>;
}

/// A channel library whose sender blocks on a full channel, and whose receiver tries and blocks.
macro_rules! way {
    ($name:ident, $sender:ty, $receiver:ty, $make:expr, $send:ident, $block:ident) => {
        struct $name;
        impl Way for $name {
            type Sender<T: Send + 'static> = $sender;
            type Receiver<T: Send + 'static> = $receiver;
            fn make<T: Send + 'static>() -> (Self::Sender<T>, Self::Receiver<T>) {
                $make
            }
            fn send<T: Send + 'static>(sender: &mut Self::Sender<T>, value: T) {
                assert!(sender.$send(value).is_ok(), "the receiver is there");
            }
            fn poll<T: Send + 'static>(receiver: &mut Self::Receiver<T>) -> Option<T> {
                receiver.try_recv().ok().into()
            }
            fn block<T: Send + 'static>(receiver: &mut Self::Receiver<T>) -> Option<T> {
                receiver.$block().ok()
            }
        }
    };
}

way!(
    StdMpsc,
    mpsc::Sender<T>,
    mpsc::Receiver<T>,
    mpsc::channel(),
    send,
    recv
);
way!(
    Crossbeam,
    crossbeam_channel::Sender<T>,
    crossbeam_channel::Receiver<T>,
    crossbeam_channel::bounded(ROOM),
    send,
    recv
);
way!(
    Flume,
    flume::Sender<T>,
    flume::Receiver<T>,
    flume::bounded(ROOM),
    send,
    recv
);

struct Kanal;
impl Way for Kanal {
    type Sender<T: Send + 'static> = kanal::Sender<T>;
    type Receiver<T: Send + 'static> = kanal::Receiver<T>;
    fn make<T: Send + 'static>() -> (Self::Sender<T>, Self::Receiver<T>) {
        kanal::bounded(ROOM)
    }
    fn send<T: Send + 'static>(sender: &mut Self::Sender<T>, value: T) {
        assert!(sender.send(value).is_ok(), "the receiver is there");
    }
    fn poll<T: Send + 'static>(receiver: &mut Self::Receiver<T>) -> Option<T> {
        receiver.try_recv().ok().flatten()
    }
    fn block<T: Send + 'static>(receiver: &mut Self::Receiver<T>) -> Option<T> {
        receiver.recv().ok()
    }
}

struct Rtrb;
impl Way for Rtrb {
    type Sender<T: Send + 'static> = rtrb::Producer<T>;
    type Receiver<T: Send + 'static> = rtrb::Consumer<T>;
    fn make<T: Send + 'static>() -> (Self::Sender<T>, Self::Receiver<T>) {
        rtrb::RingBuffer::new(ROOM)
    }
    fn send<T: Send + 'static>(sender: &mut Self::Sender<T>, value: T) {
        let mut value = value;
        while let Err(rtrb::PushError::Full(back)) = sender.push(value) {
            value = back;
        }
    }
    fn poll<T: Send + 'static>(receiver: &mut Self::Receiver<T>) -> Option<T> {
        receiver.pop().ok()
    }
    fn block<T: Send + 'static>(_: &mut Self::Receiver<T>) -> Option<T> {
        None
    }
}

struct Tokio;
impl Way for Tokio {
    type Sender<T: Send + 'static> = tokio::sync::mpsc::UnboundedSender<T>;
    type Receiver<T: Send + 'static> = tokio::sync::mpsc::UnboundedReceiver<T>;
    fn make<T: Send + 'static>() -> (Self::Sender<T>, Self::Receiver<T>) {
        tokio::sync::mpsc::unbounded_channel()
    }
    fn send<T: Send + 'static>(sender: &mut Self::Sender<T>, value: T) {
        assert!(sender.send(value).is_ok(), "the receiver is there");
    }
    fn poll<T: Send + 'static>(receiver: &mut Self::Receiver<T>) -> Option<T> {
        receiver.try_recv().ok()
    }
    fn block<T: Send + 'static>(receiver: &mut Self::Receiver<T>) -> Option<T> {
        receiver.blocking_recv()
    }
}

/// All rows.
pub(crate) fn all(lab: &Lab) -> Result<Vec<Contender>, Failure> {
    let mut rows = Vec::new();
    channel::<StdMpsc>(&mut rows, "std mpsc", Worker::Parks);
    channel::<Crossbeam>(&mut rows, "crossbeam-channel", Worker::Parks);
    channel::<Kanal>(&mut rows, "kanal", Worker::Parks);
    channel::<Flume>(&mut rows, "flume", Worker::Parks);
    channel::<Rtrb>(&mut rows, "rtrb", Worker::Spins);
    channel::<Tokio>(&mut rows, "tokio", Worker::Parks);
    rayon_rows(&mut rows, lab)?;
    Ok(rows)
}

fn channel<W: Way + 'static>(rows: &mut Vec<Contender>, peer: &'static str, idle: Worker) {
    rows.push(Contender::new("call_polling", peer, "one_line", |lab| {
        with_worker::<W, _>(lab, Worker::Spins, |line| {
            time_runs(RUNS, CALLS, |i| line.call(i))
        })
    }));
    rows.push(Contender::new(
        "call_polling_cold",
        peer,
        "one_line_cold",
        |lab| with_worker::<W, _>(lab, Worker::Spins, |line| time_cold(lab, |i| line.call(i))),
    ));
    rows.push(Contender::new("post", peer, "spsc64", |lab| {
        with_worker::<W, _>(lab, Worker::Spins, post::<W>)
    }));
    if idle == Worker::Parks {
        rows.push(Contender::new("call_parked", peer, "futex", |lab| {
            with_worker::<W, _>(lab, Worker::Parks, |line| {
                let call = |i| {
                    lab.spin(SLEEP_GAP);
                    lab.time_one(|| line.call(i))
                };
                (0..WAKE_UPS as u64).map(call).collect()
            })
        }));
    }
}

/// The way there and the way back.
struct There<W: Way> {
    jobs: W::Sender<Job>,
    results: W::Receiver<u64>,
}

impl<W: Way> There<W> {
    /// A closure there, its result back.
    fn call(&mut self, i: u64) {
        W::send(&mut self.jobs, Some(Box::new(move || black_box(i) + 1)));
        let answer = loop {
            if let Some(answer) = W::poll(&mut self.results) {
                break answer;
            }
        };
        assert_eq!(answer, i + 1, "the closure's result comes back");
    }
}

/// Closures of three words, back to back; the last one's result says that all have run.
fn post<W: Way>(line: &mut There<W>) -> Vec<f64> {
    let runs = time_runs(POST_RUNS, 1, |_| {
        for i in 0..POSTS {
            let words = [i, i, i];
            let job = move || {
                black_box(words);
                NO_RESULT
            };
            W::send(&mut line.jobs, Some(Box::new(job)));
        }
        line.call(POSTS);
    });
    runs.into_iter().map(|run| run / POSTS as f64).collect()
}

/// What a posted closure answers: nothing is sent back.
const NO_RESULT: u64 = u64::MAX;

/// Lets the responder run the jobs that come while `ask` runs.
fn with_worker<W: Way, R>(lab: &Lab, worker: Worker, ask: impl FnOnce(&mut There<W>) -> R) -> R {
    let (jobs, mut todo) = W::make::<Job>();
    let (mut done, results) = W::make::<u64>();
    let answer = move |_: &_| {
        loop {
            let job = if worker == Worker::Parks {
                W::block(&mut todo)
            } else {
                W::poll(&mut todo)
            };
            match job {
                Some(Some(job)) => {
                    let result = job();
                    if result != NO_RESULT {
                        W::send(&mut done, result);
                    }
                }
                Some(None) => break,
                None => {}
            }
        }
    };
    lab.duet(answer, || {
        let mut line = There::<W> { jobs, results };
        let result = ask(&mut line);
        W::send(&mut line.jobs, None);
        result
    })
}

/// A pool with a thread on each of the two CPUs, and one with a thread on the responder's.
fn rayon_rows(rows: &mut Vec<Contender>, lab: &Lab) -> Result<(), Failure> {
    let host = |cpu| host::host_cpu_of(&lab.machine, cpu).unwrap_or_default();
    let both = pool(vec![host(lab.caller), host(lab.responder)])?;
    let one = Arc::new(pool(vec![host(lab.responder)])?);
    let cold = Arc::clone(&one);
    rows.push(Contender::new(
        "call_polling",
        "rayon",
        "one_line",
        move |_| {
            (0..CALLS).for_each(|i| spawn_and_wait(&one, i));
            time_runs(RUNS, CALLS, |i| spawn_and_wait(&one, i))
        },
    ));
    rows.push(Contender::new(
        "call_polling_cold",
        "rayon",
        "one_line_cold",
        move |lab| time_cold(lab, |i| spawn_and_wait(&cold, i)),
    ));
    rows.push(Contender::new(
        "broadcast_two",
        "rayon",
        "two_lines",
        move |_| {
            // The machine's own two threads sleep or spin meanwhile: the caller here, for the pool's.
            both.install(|| {
                time_runs(RUNS, CALLS, |i| {
                    rayon::broadcast(|context| black_box((context.index(), i)));
                })
            })
        },
    ));
    Ok(())
}

fn pool(cpus: Vec<u32>) -> Result<rayon::ThreadPool, Failure> {
    let builder = rayon::ThreadPoolBuilder::new()
        .num_threads(cpus.len())
        .start_handler(move |i| {
            let mut set = CpuSet::new();
            set.set(cpus[i] as usize);
            if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
                eprintln!("smpcall: a thread of rayon's was not pinned: {error}");
            }
        });
    builder
        .build()
        .map_err(|error| Failure::Trouble(format!("rayon's pool: {error}")))
}

/// `spawn` there, the result back through a line of the caller's.
fn spawn_and_wait(pool: &rayon::ThreadPool, i: u64) {
    thread_local! {
        static BACK: Arc<Line<AtomicU64>> = Arc::default();
    }
    BACK.with(|back| {
        // ORDERING: Relaxed — the closure that is spawned below has not run yet.
        back.0.store(0, Ordering::Relaxed);
        let theirs = Arc::clone(back);
        // ORDERING: Release and Acquire — the result and what was written before it.
        pool.spawn(move || theirs.0.store(black_box(i) + 1, Ordering::Release));
        while back.0.load(Ordering::Acquire) != i + 1 {}
    });
}
