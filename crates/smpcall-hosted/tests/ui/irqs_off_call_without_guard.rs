//! Waiting with interrupts off takes the guard: without it, it is a plain call, which is refused at
//! run time.

use smpcall_hosted::{CpuId, Machine};

fn main() {
    let machine = Machine::builder().count(2).boot().unwrap();
    let mut guard = machine.irqs_off();
    #[cfg(feature = "refused")]
    let answer = machine.call_irqs_off(CpuId::new(1), || 7);
    #[cfg(not(feature = "refused"))]
    let answer = machine.call_irqs_off(&mut guard, CpuId::new(1), || 7);
    assert_eq!(answer.unwrap(), 7);
    drop(guard);
}
