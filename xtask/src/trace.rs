//! `cargo xtask trace`: the tracer on bare metal, on and off.
//!
//! The kernel is built once more with the feature `trace`. With a tracer given, the conformance cases run,
//! those that look at the trace among them. With none given, the bench counts instructions, and each
//! operation may cost no more than in the plain image but for a look at one word, and a branch that is
//! never taken, at each event.

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::icount::{self, Figures};
use crate::image::{self, Image};
use crate::qemu::{self, Options, Suite};
use crate::test::Counts;

/// The CPUs of the bench: one target for every operation.
const CPUS: u32 = 2;
/// Events of a call to one target: queue, send, drain, entry, exit; on the CPU itself fewer.
const EVENTS: u64 = 5;

/// The instructions of one look: the word's address and its value, and the branch.
fn look(arch: Arch) -> u64 {
    match arch {
        Arch::X86_64 => 2,
        Arch::Aarch64 | Arch::Riscv64 => 3,
    }
}

/// Both halves, on one architecture.
pub(crate) fn check(arch: Arch) -> Result<Counts> {
    let traced = image::build(arch, Image::TracedKernel)?;
    let plain = image::build(arch, Image::Kernel)?;
    let with = |kernel, suite, icount| Options {
        kernel: Some(kernel),
        suite,
        icount,
        ..Options::conformance(arch, CPUS)
    };
    let cases = qemu::boot(&with(traced.clone(), Suite::Trace, false))?;
    let mut counts = Counts {
        passed: cases.report.passed,
        failed: cases.report.failed,
    };
    counts.add(cases.faults.is_empty().into());
    let mut count = |kernel| -> Result<Figures> {
        let outcome = qemu::boot(&with(kernel, Suite::Bench, true))?;
        counts.add(outcome.faults.is_empty().into());
        icount::rows(&outcome.report.records)
    };
    let (plain, off) = (count(plain)?, count(traced)?);
    println!("arch     operation              plain  switched off");
    for (key, &plain) in &plain {
        let off = *off
            .get(key)
            .with_context(|| format!("{} was not counted with the tracer", key.1))?;
        let fits = off <= plain + EVENTS * look(arch);
        let verdict = if fits { "" } else { "too many" };
        println!("{:8} {:21} {plain:6} {off:13} {verdict}", key.0, key.1);
        counts.add(fits.into());
    }
    Ok(counts)
}
