//! The CPUs of a broadcast share its closure: it must be `Sync`.

#[cfg(feature = "refused")]
use std::cell::Cell as Number;
#[cfg(not(feature = "refused"))]
use std::sync::Mutex as Number;

use smpcall_hosted::Machine;

fn main() {
    let machine = Machine::builder().count(2).boot().unwrap();
    let number = Number::new(7);
    machine
        .on_each_cpu(|_| {
            let _ = &number;
        })
        .unwrap();
}
