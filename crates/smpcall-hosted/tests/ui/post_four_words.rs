//! A posted closure travels in three words: a fourth is refused, with the way out named.

use smpcall_hosted::{CpuId, Machine};

#[cfg(feature = "refused")]
const WORDS: usize = 4;
#[cfg(not(feature = "refused"))]
const WORDS: usize = 3;

fn main() {
    let machine = Machine::builder().count(2).boot().unwrap();
    let words = [1_usize; WORDS];
    machine
        .post(CpuId::new(1), move || assert_eq!(words[0], 1))
        .unwrap();
}
