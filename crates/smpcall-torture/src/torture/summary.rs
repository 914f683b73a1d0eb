//! What a run answers: figures while it runs, and at its end.

use core::fmt;

use super::op::{ALL, OPS};
use super::room::{FAULT_NAMES, FAULTS};

/// How a run goes.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Progress {
    /// Time so far.
    pub elapsed_ns: u64,
    /// Operations so far.
    pub operations: u64,
    /// How often a CPU went down and came back.
    pub hotplug_cycles: u64,
    /// Faults so far.
    pub errors: u64,
    /// CPUs that are online now.
    pub online: usize,
}

/// How a run went. Displays as one JSON object, the last line of `smpcall torture --json`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Summary {
    /// What the choices were made from.
    pub seed: u64,
    /// How long it ran.
    pub seconds: u64,
    /// CPUs that took part.
    pub cpus: usize,
    /// Operations in all.
    pub operations: u64,
    /// Operations of each kind.
    pub by_operation: [(&'static str, u64); OPS],
    /// Calls in them that were refused: the CPU was offline, the lane full, the descriptor busy.
    pub refused: [(&'static str, u64); OPS],
    /// Faults of each kind.
    pub by_fault: [(&'static str, u64); FAULTS],
    /// Posts that were accepted, each of which ran.
    pub posts: u64,
    /// How often a CPU went down and came back.
    pub hotplug_cycles: u64,
    /// How often a CPU was too busy to leave in time.
    pub hotplug_timeouts: u64,
    /// Faults in all.
    pub errors: u64,
    /// Were there operations and no faults?
    pub ok: bool,
}

impl Summary {
    pub(crate) fn new(seed: u64, seconds: u64, cpus: usize) -> Self {
        Self {
            seed,
            seconds,
            cpus,
            operations: 0,
            by_operation: core::array::from_fn(|i| (ALL[i].name(), 0)),
            refused: core::array::from_fn(|i| (ALL[i].name(), 0)),
            by_fault: core::array::from_fn(|i| (FAULT_NAMES[i], 0)),
            posts: 0,
            hotplug_cycles: 0,
            hotplug_timeouts: 0,
            errors: 0,
            ok: false,
        }
    }
}

/// A JSON object of numbers.
struct Object<'a>(&'a [(&'static str, u64)]);

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, n)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}\"{name}\":{n}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            seconds,
            cpus,
            operations,
            ..
        } = self;
        write!(
            f,
            "{{\"type\":\"torture\",\"seed\":{seed},\"seconds\":{seconds},\"cpus\":{cpus}"
        )?;
        write!(f, ",\"operations\":{operations}")?;
        write!(f, ",\"by_operation\":{}", Object(&self.by_operation))?;
        write!(f, ",\"refused\":{}", Object(&self.refused))?;
        let Self {
            posts,
            hotplug_cycles,
            hotplug_timeouts,
            ..
        } = self;
        write!(f, ",\"posts\":{posts},\"hotplug_cycles\":{hotplug_cycles}")?;
        write!(f, ",\"hotplug_timeouts\":{hotplug_timeouts}")?;
        let Self { errors, ok, .. } = self;
        write!(
            f,
            ",\"errors\":{errors},\"by_fault\":{}",
            Object(&self.by_fault)
        )?;
        write!(f, ",\"ok\":{ok}}}")
    }
}
