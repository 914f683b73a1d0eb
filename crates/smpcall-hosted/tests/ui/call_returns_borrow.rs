//! A result may borrow what the caller owns, and not what dies before it.

use smpcall_hosted::{CpuId, Machine};

fn main() {
    let machine = Machine::builder().count(2).boot().unwrap();
    let outer = String::from("outer");
    let answer = {
        let inner = String::from("inner");
        #[cfg(feature = "refused")]
        let borrowed = &inner;
        #[cfg(not(feature = "refused"))]
        let borrowed = &outer;
        assert_eq!(inner.len(), 5);
        machine.call(CpuId::new(1), move || &borrowed[1..])
    };
    assert_eq!(answer.unwrap(), "uter");
}
