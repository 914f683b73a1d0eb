//! A result comes from another CPU: it must be `Send`.

#[cfg(feature = "refused")]
use std::rc::Rc as Shared;
#[cfg(not(feature = "refused"))]
use std::sync::Arc as Shared;

use smpcall_hosted::{CpuId, Machine};

fn main() {
    let machine = Machine::builder().count(2).boot().unwrap();
    let answer = machine.call(CpuId::new(1), || Shared::new(7_i32));
    assert_eq!(*answer.unwrap(), 7);
}
