//! Interrupts are off on one CPU: the guard that says so cannot go to another thread.

use smpcall_hosted::Machine;

fn main() {
    let machine = Machine::builder().count(2).boot().unwrap();
    let guard = machine.irqs_off();
    std::thread::scope(|scope| {
        #[cfg(feature = "refused")]
        scope.spawn(move || drop(guard));
        #[cfg(not(feature = "refused"))]
        scope.spawn(|| machine.num_online_cpus());
    });
    #[cfg(not(feature = "refused"))]
    drop(guard);
}
