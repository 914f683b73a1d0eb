//! A tokio runtime per core, whose threads are the CPUs of one machine.
//!
//! Each shard has a current-thread runtime, tasks and timers of its own, and data that only its thread touches.
//! A task that needs another shard's data calls that shard: the function runs there, between two of its
//! tasks, and brings the answer back. No shard polls: one that is idle sleeps in its runtime's
//! epoll, and is woken by the descriptor of its CPU.
//!
//! `cargo run -p smpcall-hosted --example tokio_per_core`

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use smpcall_hosted::{Attached, CallError, CpuId, Machine};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Barrier;
use tokio::task::{self, LocalSet};

const SHARDS: u32 = 4;
const KEYS: u32 = 100;

/// What goes from a shard's thread to `main`.
type Failure = Box<dyn std::error::Error + Send + Sync>;

thread_local! {
    /// The shard's part of the data. A called function may run in any wait of this thread, so no
    /// borrow is held across one.
    static DATA: RefCell<HashMap<u32, u64>> = RefCell::default();
}

/// Takes the calls to this CPU from inside the event loop, until it is taken offline.
async fn serve(doorbell: AsyncFd<Attached>) -> io::Result<()> {
    let here = doorbell.get_ref();
    while here.is_online() {
        here.serve();
        // From here on a call makes the descriptor readable, unless one was there first.
        if here.prepare_to_sleep() {
            doorbell.readable().await?.clear_ready();
        } else {
            task::yield_now().await;
        }
    }
    Ok(())
}

/// The shard that has a key.
fn home_of(key: u32) -> CpuId {
    CpuId::new(key % SHARDS)
}

/// Adds to a key, wherever it is, and answers its new value.
fn add(machine: &Machine, key: u32, more: u64) -> Result<u64, CallError> {
    let add_here = || {
        DATA.with_borrow_mut(|data| {
            let value = data.entry(key).or_default();
            *value += more;
            *value
        })
    };
    Ok(machine.call(home_of(key), add_here)?)
}

/// A shard's life: its thread attaches, serves, works, and waits for the others.
fn shard(machine: &Machine, cpu: CpuId, all: &Barrier) -> Result<usize, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let here = machine.attach(cpu)?;
    // The program's choice; without it the kernel moves the thread as it likes.
    here.pin()?;
    LocalSet::new().block_on(&runtime, async {
        // SAFETY: an `Attached` answers one descriptor, which is open as long as it lives.
        let doorbell = unsafe { AsyncFd::register_with_interest(here, Interest::READABLE) };
        let doorbell = doorbell.map_err(|error| error.to_string())?;
        let serving = task::spawn_local(serve(doorbell));
        // Nobody calls a shard that has not attached yet.
        all.wait().await;
        for key in 0..KEYS {
            add(machine, key, u64::from(cpu.get()) + 1)?;
            if key % 10 == 0 {
                // Idle for a while: its thread sleeps, and serves when it is called.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        // It serves until all have finished; then its guard goes with the task.
        all.wait().await;
        let kept = DATA.with_borrow(HashMap::len);
        all.wait().await;
        serving.abort();
        Ok(kept)
    })
}

/// Runs the shards to their end.
fn main() -> Result<(), Failure> {
    let builder = Machine::builder().count(SHARDS as usize).only_attached();
    let machine = Arc::new(builder.boot()?);
    let all = Arc::new(Barrier::new(SHARDS as usize));
    let shards: Vec<_> = (0..SHARDS)
        .map(|id| {
            let (machine, all) = (Arc::clone(&machine), Arc::clone(&all));
            thread::spawn(move || shard(&machine, CpuId::new(id), &all))
        })
        .collect();
    let mut keys = 0;
    for (id, shard) in shards.into_iter().enumerate() {
        let kept = shard.join().map_err(|_| "a shard panicked")??;
        println!("shard {id} keeps {kept} keys");
        keys += kept;
    }
    println!(
        "{keys} keys of {KEYS}, {} wake-ups by descriptor",
        machine.platform().signals()
    );
    if keys != KEYS as usize {
        return Err("keys were lost".into());
    }
    Ok(())
}
