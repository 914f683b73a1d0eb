//! A value that cannot be shared is not lent to other threads.
#[cfg(feature = "refused")]
use std::cell::Cell as Value;
#[cfg(not(feature = "refused"))]
use std::sync::atomic::AtomicU32 as Value;

use smpcall_hosted::{CpuId, Machine};

fn main() {
    let machine = Machine::builder().count(1).boot().unwrap();
    let data = machine.per_cpu(|_| Value::new(1_u32));
    assert!(data.get(CpuId::new(0)).is_some());
}
