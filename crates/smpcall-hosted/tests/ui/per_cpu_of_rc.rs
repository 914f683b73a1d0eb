//! A value goes from thread to thread with its CPU, so it must be `Send`.
#[cfg(feature = "refused")]
use std::rc::Rc as Shared;
#[cfg(not(feature = "refused"))]
use std::sync::Arc as Shared;

use smpcall_hosted::{CpuId, Machine};

fn main() {
    let machine = Machine::builder().count(1).boot().unwrap();
    let data = machine.per_cpu(|_| Shared::new(1));
    machine
        .call(CpuId::new(0), || data.with(&machine, |own| **own).unwrap())
        .unwrap();
}
