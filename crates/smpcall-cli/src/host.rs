//! Booting the machine that was asked for, and what its CPUs really are.

use smpcall_hosted::{BootError, BootParams, Builder, CpuId, HostCpus, Machine};

use crate::Failure;
use crate::args::CpuChoice;

/// A builder of the machine that `--cpus` asks for.
pub(crate) fn builder(cpus: Option<&CpuChoice>) -> Builder {
    match cpus {
        None => Machine::builder(),
        Some(CpuChoice::Count(count)) => Machine::builder().count(*count),
        Some(CpuChoice::List(cpus)) => Machine::builder().list(cpus),
    }
}

/// Boots the machine that `--cpus` asks for.
pub(crate) fn boot(cpus: Option<&CpuChoice>) -> Result<Machine, Failure> {
    builder(cpus).boot().map_err(boot_failure)
}

/// Boots what was built.
pub(crate) fn start(builder: Builder) -> Result<Machine, Failure> {
    builder.boot().map_err(boot_failure)
}

/// As [`boot`], with a kernel's command line.
pub(crate) fn boot_with(cpus: Option<&CpuChoice>, cmdline: &str) -> Result<Machine, Failure> {
    let capacity = smpcall_hosted::CpuMask::CAPACITY as u32;
    let params =
        BootParams::parse(cmdline, capacity).map_err(|bad| Failure::Trouble(bad.to_string()))?;
    builder(cpus).params(params).boot().map_err(boot_failure)
}

/// A machine that cannot be is a matter of usage; one that did not come up is not.
pub(crate) fn boot_failure(error: BootError) -> Failure {
    let message = error.to_string();
    match error {
        BootError::NoCpus | BootError::TooMany { .. } | BootError::NotAllowed { .. } => {
            Failure::Usage(format!("--cpus: {message}"))
        }
        _ => Failure::Trouble(message),
    }
}

/// How many CPUs of the computer a machine's CPUs are pinned to.
pub(crate) fn distinct_host_cpus(machine: &Machine) -> usize {
    let mut hosts: Vec<_> = machine
        .present_cpus()
        .iter()
        .map(|cpu| host_cpu_of(machine, cpu))
        .collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts.len()
}

/// The computer's CPU that a CPU of the machine is pinned to.
pub(crate) fn host_cpu_of(machine: &Machine, cpu: CpuId) -> Option<u32> {
    machine.platform().host_cpu_of(cpu)
}

/// How many CPUs of the computer this process may use.
pub(crate) fn allowed_count() -> Result<usize, Failure> {
    let allowed = HostCpus::allowed()
        .map_err(|error| Failure::Trouble(format!("the affinity mask is not known: {error}")))?;
    Ok(allowed.mask().len())
}
