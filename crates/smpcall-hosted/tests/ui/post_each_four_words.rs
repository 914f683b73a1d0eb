//! A posted broadcast copies its closure into three words at each target.

use smpcall_hosted::Machine;

#[cfg(feature = "refused")]
const WORDS: usize = 4;
#[cfg(not(feature = "refused"))]
const WORDS: usize = 3;

fn main() {
    let machine = Machine::builder().count(2).boot().unwrap();
    let words = [1_usize; WORDS];
    machine.post_each(move |_| assert_eq!(words[0], 1)).unwrap();
}
