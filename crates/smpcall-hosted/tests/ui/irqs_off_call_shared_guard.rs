//! While a CPU waits with interrupts off, it runs calls of others: nothing may be borrowed through
//! the guard meanwhile.

use smpcall_hosted::{CpuId, Machine};

fn main() {
    let machine = Machine::builder().count(2).boot().unwrap();
    let mut guard = machine.irqs_off();
    #[cfg(feature = "refused")]
    let held = &guard;
    let answer = machine.call_irqs_off(&mut guard, CpuId::new(1), || 7);
    #[cfg(feature = "refused")]
    println!("{held:?}");
    assert_eq!(answer.unwrap(), 7);
}
