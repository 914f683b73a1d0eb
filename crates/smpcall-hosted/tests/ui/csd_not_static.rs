//! A descriptor that is not pinned must live for ever.

use smpcall_hosted::{CpuId, Csd, Machine};

static STATIC: Csd = Csd::new(|| ());

fn main() {
    let machine = Machine::builder().count(2).boot().unwrap();
    let on_the_stack: Csd = Csd::new(|| ());
    #[cfg(feature = "refused")]
    let csd = &on_the_stack;
    #[cfg(not(feature = "refused"))]
    let csd = &STATIC;
    machine.post_static_csd(CpuId::new(1), csd).unwrap();
    assert!(!on_the_stack.is_queued());
}
