//! A thread is a CPU: the guard that says so cannot go to another thread.

use smpcall_hosted::{CpuId, Machine};

fn main() {
    let machine = Machine::builder().count(2).only_attached().boot().unwrap();
    let here = machine.attach(CpuId::new(1)).unwrap();
    std::thread::scope(|scope| {
        #[cfg(feature = "refused")]
        scope.spawn(move || drop(here));
        #[cfg(not(feature = "refused"))]
        scope.spawn(|| machine.num_online_cpus());
    });
    #[cfg(not(feature = "refused"))]
    drop(here);
}
