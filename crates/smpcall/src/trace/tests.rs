//! A loom model of a trace: E28.

use std::sync::Arc;

use loom::thread;

use super::{PairCounters, TraceBuffer, TraceKind, TraceSlot, Tracer};
use crate::cpu::CpuId;
use crate::testing::model;

fn name() -> &'static str {
    "name"
}

#[test]
fn e28_an_event_that_is_there_is_whole() {
    model(|| {
        let storage = Arc::new((
            [TraceBuffer::new(), TraceBuffer::new()],
            [TraceSlot::new(), TraceSlot::new()],
            std::array::from_fn::<_, 4, _>(|_| PairCounters::new()),
        ));
        let writer = thread::spawn({
            let storage = Arc::clone(&storage);
            move || {
                let tracer = Tracer::new(&storage.0, &storage.1, &storage.2);
                let cpu = Some(CpuId::new(0));
                tracer.record(cpu, 7, TraceKind::Entry, Some(name), 9);
                tracer.record(cpu, 8, TraceKind::Exit, Some(name), 9);
            }
        });
        let tracer = Tracer::new(&storage.0, &storage.1, &storage.2);
        for event in tracer.events() {
            assert_eq!((event.time_ns, event.request), (7, 9));
            assert_eq!(event.kind, TraceKind::Entry);
            assert_eq!(event.function, Some("name"));
        }
        writer.join().unwrap();
        assert_eq!(tracer.events().count(), 1);
        assert_eq!((tracer.lost(), tracer.ran(CpuId::new(0))), (1, 1));
    });
}
