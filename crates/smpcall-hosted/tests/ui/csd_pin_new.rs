//! `Pin::new` is for what may move all the same; a descriptor may not.

use std::pin::{Pin, pin};

use smpcall_hosted::{CpuId, Csd, Machine};

fn main() {
    let machine = Machine::builder().count(2).boot().unwrap();
    #[cfg(feature = "refused")]
    let csd = Csd::new(|| ());
    #[cfg(feature = "refused")]
    let csd = Pin::new(&csd);
    #[cfg(not(feature = "refused"))]
    let csd = pin!(Csd::new(|| ()));
    #[cfg(not(feature = "refused"))]
    let csd: Pin<&Csd<_>> = csd.as_ref();
    machine.post_csd(CpuId::new(1), csd).unwrap();
}
