//! `cargo xtask trace`: the tracer on bare metal, on and off.
//!
//! The kernel is built once more with the feature `trace`. With a tracer given, the conformance cases run,
//! those that look at the trace among them. With none given, the bench counts instructions: an operation
//! may cost a few more for each event than in the plain image, where the platform answers no tracer by a
//! constant and nothing of it is left.

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::icount::{self, Figures};
use crate::image::{self, Image};
use crate::qemu::{self, Options, Suite};
use crate::test::Counts;

/// The CPUs of the bench: one target for every operation.
const CPUS: u32 = 2;
/// Looks for a tracer in a broadcast to one target: before the queue and send events, in the drain, and before each run, there and here.
const LOOKS: u64 = 5;

/// The instructions of a look that finds none: the word, the branch, and registers that are kept over
/// the call behind the branch. On aarch64 a path has more of those that it would not keep otherwise:
/// an `on_each_cpu` was 53 above the plain one, 29 on x86_64.
fn look(arch: Arch) -> u64 {
    match arch {
        Arch::X86_64 | Arch::Riscv64 => 5,
        Arch::Aarch64 => 10,
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
        let most = plain + LOOKS * look(arch) + icount::tolerance(plain);
        let fits = off <= most;
        let verdict = if fits { "" } else { "too many" };
        println!("{:8} {:21} {plain:6} {off:13} {verdict}", key.0, key.1);
        counts.add(fits.into());
    }
    Ok(counts)
}
