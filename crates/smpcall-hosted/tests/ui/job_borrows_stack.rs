//! A job's handle may be forgotten, so a job cannot borrow the stack.

use smpcall_hosted::{CpuId, Machine};

static STATIC: u32 = 7;

fn main() {
    let machine = Machine::builder().count(2).boot().unwrap();
    let on_the_stack = 7;
    #[cfg(feature = "refused")]
    let number = &on_the_stack;
    #[cfg(not(feature = "refused"))]
    let number = &STATIC;
    let job = machine.spawn_on(CpuId::new(1), move || *number).unwrap();
    assert_eq!(job.join().unwrap(), on_the_stack);
}
