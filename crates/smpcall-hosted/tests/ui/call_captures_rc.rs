//! A called closure runs on another CPU: what it captures must be `Send`.

#[cfg(feature = "refused")]
use std::rc::Rc as Shared;
#[cfg(not(feature = "refused"))]
use std::sync::Arc as Shared;

use smpcall_hosted::{CpuId, Machine};

fn main() {
    let machine = Machine::builder().count(2).boot().unwrap();
    let shared = Shared::new(7);
    let answer = machine.call(CpuId::new(1), move || *shared);
    assert_eq!(answer.unwrap(), 7);
}
