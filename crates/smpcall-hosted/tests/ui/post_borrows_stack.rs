//! A posted closure runs when its poster may be gone: it cannot borrow the stack.

use std::sync::atomic::{AtomicU32, Ordering};

use smpcall_hosted::{CpuId, Machine};

static STATIC: AtomicU32 = AtomicU32::new(0);

fn main() {
    let machine = Machine::builder().count(2).boot().unwrap();
    let on_the_stack = AtomicU32::new(0);
    #[cfg(feature = "refused")]
    let counter = &on_the_stack;
    #[cfg(not(feature = "refused"))]
    let counter = &STATIC;
    machine
        .post(CpuId::new(1), move || {
            counter.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
    assert_eq!(on_the_stack.into_inner(), 0);
}
