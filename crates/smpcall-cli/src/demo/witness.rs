//! Who really ran a function: noted by the function itself, on the spot.
//!
//! Posted functions outlive the caller's frame and are copied to many CPUs, so the witness is a
//! static, and they capture nothing. It keeps the machine weakly: the last owner must not be a CPU.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use smpcall_hosted::{CpuId, CpuMask, Machine, host_cpu};

/// The one witness.
pub(super) static WITNESS: Witness = Witness::new();

/// A note per CPU.
pub(super) struct Witness {
    machine: OnceLock<Weak<Machine>>,
    notes: [Note; CpuMask::CAPACITY],
    strangers: AtomicU32,
}

struct Note {
    runs: AtomicU32,
    host_cpu: AtomicU32,
}

/// What the witness saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Who ran it, in rising order.
    pub(super) cpus: Vec<CpuId>,
    /// The computer's CPU that each of them was on.
    pub(super) host_cpus: Vec<u32>,
    /// A CPU that ran it more than once.
    pub(super) twice: Option<CpuId>,
    /// Runs on threads that are no CPU.
    pub(super) strangers: u32,
}

impl Seen {
    pub(super) fn mask(&self) -> CpuMask {
        self.cpus.iter().copied().collect()
    }
}

/// Notes where this runs.
pub(super) fn note() {
    WITNESS.note();
}

impl Witness {
    const fn new() -> Self {
        Self {
            machine: OnceLock::new(),
            notes: [const {
                Note {
                    runs: AtomicU32::new(0),
                    host_cpu: AtomicU32::new(0),
                }
            }; CpuMask::CAPACITY],
            strangers: AtomicU32::new(0),
        }
    }

    /// From here on the notes are of this machine's CPUs.
    pub(super) fn watch(&self, machine: &Arc<Machine>) {
        // One demo a process: a second machine would be a stranger.
        let _ = self.machine.set(Arc::downgrade(machine));
    }

    fn note(&self) {
        let machine = self.machine.get().and_then(Weak::upgrade);
        self.note_on(machine.and_then(|machine| machine.current_cpu()));
    }

    /// Notes a run on a CPU, or on a thread that is none.
    pub(super) fn note_on(&self, cpu: Option<CpuId>) {
        let Some(note) = cpu.and_then(|cpu| self.notes.get(cpu.index())) else {
            // ORDERING: Relaxed — the end of the call that is judged orders all notes before it.
            self.strangers.fetch_add(1, Ordering::Relaxed);
            return;
        };
        // ORDERING: Relaxed — as above.
        note.host_cpu.store(host_cpu(), Ordering::Relaxed);
        // ORDERING: Relaxed — as above.
        note.runs.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets.
    pub(super) fn clear(&self) {
        for note in &self.notes {
            // ORDERING: Relaxed — nothing that notes is on its way.
            note.runs.store(0, Ordering::Relaxed);
        }
        // ORDERING: Relaxed — as above.
        self.strangers.store(0, Ordering::Relaxed);
    }

    /// What was seen since it forgot.
    pub(super) fn seen(&self) -> Seen {
        let mut seen = Seen {
            // ORDERING: Relaxed — everything that notes has been waited for.
            strangers: self.strangers.load(Ordering::Relaxed),
            ..Seen::default()
        };
        for (id, note) in (0..).zip(&self.notes) {
            // ORDERING: Relaxed — as above.
            let runs = note.runs.load(Ordering::Relaxed);
            if runs > 0 {
                seen.cpus.push(CpuId::new(id));
                // ORDERING: Relaxed — as above.
                seen.host_cpus.push(note.host_cpu.load(Ordering::Relaxed));
            }
            if runs > 1 {
                seen.twice = Some(CpuId::new(id));
            }
        }
        seen
    }
}
