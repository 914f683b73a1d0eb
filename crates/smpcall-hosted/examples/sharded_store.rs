//! A key-value store with a shard per CPU, and no lock.
//!
//! Each key belongs to one CPU, and only that CPU touches its shard. A request is a call: it runs
//! where the data is, and its result comes back. The closures borrow the caller's key and value;
//! nothing is boxed and no channel is made. Statistics are a call to all shards at once.
//!
//! `cargo run --example sharded_store`

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::panic::resume_unwind;
use std::thread;

use smpcall_hosted::{CallError, CpuId, Machine};

thread_local! {
    /// This CPU's shard. Calls do not nest, so a borrow inside a called function always succeeds.
    static SHARD: RefCell<HashMap<String, String>> = RefCell::default();
}

struct Store {
    machine: Machine,
    hasher: RandomState,
}

impl Store {
    fn shard_of(&self, key: &str) -> CpuId {
        let shards = u64::from(self.machine.nr_cpu_ids());
        CpuId::new((self.hasher.hash_one(key) % shards) as u32)
    }

    fn set(&self, key: &str, value: &str) -> Result<Option<String>, CallError> {
        let insert =
            || SHARD.with_borrow_mut(|shard| shard.insert(key.to_owned(), value.to_owned()));
        Ok(self.machine.call(self.shard_of(key), insert)?)
    }

    fn get(&self, key: &str) -> Result<Option<String>, CallError> {
        let look_up = || SHARD.with_borrow(|shard| shard.get(key).cloned());
        Ok(self.machine.call(self.shard_of(key), look_up)?)
    }

    /// How many keys each shard has.
    fn statistics(&self) -> Result<Vec<(CpuId, usize)>, CallError> {
        let count = |_| SHARD.with_borrow(HashMap::len);
        Ok(self.machine.collect_each(count)?)
    }
}

/// A client is any thread; it need not be a CPU.
///
/// # Panics
/// If the store forgets.
fn client(store: &Store, name: usize) -> Result<(), CallError> {
    for number in 0..200 {
        let (key, value) = (format!("{name}/{number}"), number.to_string());
        assert_eq!(store.set(&key, &value)?, None);
        assert_eq!(store.get(&key)?, Some(value));
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store {
        machine: Machine::builder().count(4).boot()?,
        hasher: RandomState::new(),
    };
    thread::scope(|scope| {
        let clients = [0, 1, 2].map(|name| {
            let store = &store;
            scope.spawn(move || client(store, name))
        });
        clients
            .into_iter()
            .try_for_each(|client| client.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })?;
    let statistics = store.statistics()?;
    for (shard, keys) in &statistics {
        println!("shard {shard}: {keys} keys");
    }
    assert_eq!(statistics.iter().map(|(_, keys)| keys).sum::<usize>(), 600);
    assert_eq!(store.get("no such key")?, None);
    Ok(())
}
