//! Suite `trace`: the conformance cases with a tracer, from before the first call.
//!
//! The image with the feature `trace` has it: `cargo xtask trace` builds it, runs this, and compares what
//! its operations cost while no tracer is given with what those of the plain image cost.

use smpcall::{PairCounters, TraceBuffer, TraceSlot, Tracer};

/// CPUs that have a buffer of their own, and one buffer more for all others.
const BUFFERS: usize = 16 + 1;
/// Events for each.
const EVENTS: usize = 4096;

static TRACER: Tracer<'static> = {
    static BUFFER: [TraceBuffer; BUFFERS] = [const { TraceBuffer::new() }; BUFFERS];
    static SLOTS: [TraceSlot; BUFFERS * EVENTS] = [const { TraceSlot::new() }; BUFFERS * EVENTS];
    static PAIRS: [PairCounters; BUFFERS * BUFFERS] =
        [const { PairCounters::new() }; BUFFERS * BUFFERS];
    Tracer::new(&BUFFER, &SLOTS, &PAIRS)
};

/// Events are kept from now on.
pub(crate) fn start() {
    smpcall_metal::set_tracer(Some(&TRACER));
}
