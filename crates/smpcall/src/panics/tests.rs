//! Loom models of the panic slot of a broadcast: E21.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::sync::Arc;

use loom::thread;

use super::PanicSlot;
use crate::cpu::CpuId;
use crate::testing::{Loom, model};

#[test]
fn e21_the_panic_of_the_lowest_cpu_is_kept_and_the_other_reported() {
    model(|| {
        let world = Arc::new((Loom::new(), PanicSlot::<Loom>::new()));
        let other = thread::spawn({
            let world = world.clone();
            move || world.1.put(&world.0, CpuId::new(2), 22)
        });
        world.1.put(&world.0, CpuId::new(1), 11);
        other.join().unwrap();
        assert_eq!(world.1.take(), Some(11));
        assert_eq!(*world.0.panics.lock().unwrap(), [(2, 22)]);
    });
}
