//! A queued descriptor must not move: a plain reference does not promise that.

use smpcall_hosted::{CpuId, Csd, Machine};

fn main() {
    let machine = Machine::builder().count(2).boot().unwrap();
    let csd = Box::pin(Csd::new(|| ()));
    #[cfg(feature = "refused")]
    machine.post_csd(CpuId::new(1), &*csd).unwrap();
    #[cfg(not(feature = "refused"))]
    machine.post_csd(CpuId::new(1), csd.as_ref()).unwrap();
}
