//! A loom model of per-CPU data whose CPU becomes another thread (E17).
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::sync::Arc;

use loom::thread;

use super::{PerCpu, PerCpuError, PerCpuSlot};
use crate::cpu::CpuId;
use crate::hotplug::CpuState;
use crate::testing::{Plain, Small, become_cpu, large_model, small};

const ONE: CpuId = CpuId::new(1);

/// An instance and data of its CPUs.
struct World {
    smp: Small,
    data: PerCpu<Plain, [PerCpuSlot<Plain>; 2]>,
}

// SAFETY: the instance is `Sync`, and loom checks the plain memory.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

#[test]
fn e17_per_cpu_data_goes_on_with_the_cpus_next_owner() {
    large_model(|| {
        let world = Arc::new(World {
            smp: small(&[0, 1]),
            data: PerCpu::new([(); 2].map(|()| PerCpuSlot::new(Plain::new()))),
        });
        let first = thread::spawn({
            let world = world.clone();
            move || {
                become_cpu(1);
                world.data.with(&world.smp, |data| data.set(7)).unwrap();
                world.smp.offline_this_cpu().unwrap();
            }
        });
        assert_eq!(
            world.data.with(&world.smp, |_| ()),
            Err(PerCpuError::NotACpu)
        );
        while world.smp.cpu_state(ONE) != CpuState::Offline {
            thread::yield_now();
        }
        become_cpu(1);
        assert_eq!(world.data.with(&world.smp, Plain::get), Ok(7));
        first.join().unwrap();
    });
}
