//! The post rings of a machine's CPUs, and the fence on all threads that lets posts go without one.
//!
//! A sender that posts to a streaming CPU makes no fence; the CPU that goes to sleep or back to work
//! makes all threads of the process execute one instead (`barrier.rs`). Only where the kernel does that in
//! microseconds; elsewhere each post pays an exchange on the doorbell.

use smpcall::{CpuId, PostRing};

use crate::barrier::{BarrierMeans, process_barrier, process_barrier_by};

/// How many lines of senders a CPU has.
const LINES: usize = 4;

/// What a platform keeps for posts.
#[derive(Debug)]
pub(crate) struct Rings {
    /// By CPU, then by line.
    rings: Box<[[PostRing; LINES]]>,
    can_fence_all: bool,
}

impl Rings {
    /// Of CPUs `0..cpus`.
    pub(crate) fn new(cpus: usize) -> Self {
        Self {
            rings: (0..cpus)
                .map(|_| [const { PostRing::new() }; LINES])
                .collect(),
            can_fence_all: process_barrier_by(BarrierMeans::Expedited).is_ok(),
        }
    }

    #[inline]
    pub(crate) fn get(&self, cpu: CpuId, line: usize) -> Option<&PostRing> {
        self.rings.get(cpu.index())?.get(line)
    }

    #[inline]
    pub(crate) fn can_fence_all(&self) -> bool {
        self.can_fence_all
    }
}

/// Every thread of the process executes a full fence.
pub(crate) fn fence_all() {
    process_barrier();
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_each_cpu_has_a_ring_of_its_own() {
        let rings = Rings::new(3);
        let mut seen: Vec<*const PostRing> = Vec::new();
        for cpu in 0..3 {
            for line in 0..LINES {
                let ring = rings.get(CpuId::new(cpu), line).map(std::ptr::from_ref);
                seen.extend(ring);
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 3 * LINES);
        assert!(rings.get(CpuId::new(3), 0).is_none());
        assert!(rings.get(CpuId::new(0), LINES).is_none());
    }
}
