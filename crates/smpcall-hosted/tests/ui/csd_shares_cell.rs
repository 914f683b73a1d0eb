//! A called descriptor's function is run through a reference on another CPU: it must be `Sync`.

#[cfg(feature = "refused")]
use std::cell::Cell as Number;
#[cfg(not(feature = "refused"))]
use std::sync::Mutex as Number;

use smpcall_hosted::{CpuId, Csd, Machine};

fn main() {
    let machine = Machine::builder().count(2).boot().unwrap();
    let number = Number::new(7);
    let csd = Csd::new(|| {
        let _ = &number;
    });
    machine.call_csd(CpuId::new(1), &csd).unwrap();
}
