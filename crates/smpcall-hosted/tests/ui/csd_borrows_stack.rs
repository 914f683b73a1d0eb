//! A posted descriptor's function is copied to the target and may run after the descriptor is
//! gone: it cannot borrow the stack.

use std::sync::atomic::{AtomicU32, Ordering};

use smpcall_hosted::{CpuId, Csd, Machine};

static STATIC: AtomicU32 = AtomicU32::new(0);

fn main() {
    let machine = Machine::builder().count(2).boot().unwrap();
    let on_the_stack = AtomicU32::new(0);
    #[cfg(feature = "refused")]
    let counter = &on_the_stack;
    #[cfg(not(feature = "refused"))]
    let counter = &STATIC;
    let csd = Box::pin(Csd::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    machine.post_csd(CpuId::new(1), csd.as_ref()).unwrap();
    drop(csd);
    assert_eq!(on_the_stack.into_inner(), 0);
}
