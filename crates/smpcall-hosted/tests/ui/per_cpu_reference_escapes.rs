//! A reference to a CPU's own value does not leave the use.
use std::cell::Cell;

use smpcall_hosted::{CpuId, Machine};

fn main() {
    let machine = Machine::builder().count(1).boot().unwrap();
    let data = machine.per_cpu(|_| Cell::new(1));
    machine
        .call(CpuId::new(0), || {
            #[cfg(not(feature = "refused"))]
            let value = data.with(&machine, |own| own.get());
            #[cfg(feature = "refused")]
            let value = data.with(&machine, |own| own);
            drop(value);
        })
        .unwrap();
}
