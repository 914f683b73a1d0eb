//! Starting and stopping CPUs through PSCI, the firmware interface of Arm (DEN0022).
//!
//! CPU_ON names a CPU by its MPIDR and gives it an address and one number, for which the logical id
//! serves. CPU_OFF is called by the CPU that leaves. AFFINITY_INFO says when it is off, and only then
//! is its stack free. CPU_ON after that is a restart like the first start.

use aarch64_cpu::asm::barrier;
use smccc::psci::{self, AffinityState, Error, LowestAffinityLevel};
use smccc::{Hvc, Smc};

use super::{Word, boot, ipi, irq, percpu, time};
use crate::StartError;
use crate::fdt::{PsciMethod, Tree};

/// How PSCI is called: the device tree's answer.
static METHOD: Word = Word::new(NONE);
const NONE: u64 = 0;
const HVC: u64 = 1;
const SMC: u64 = 2;

unsafe extern "C" {
    /// `boot.S`: where PSCI enters, with the MMU off and the logical id in x0.
    safe static smpcall_secondary_start: u32;
}

/// Calls a PSCI function the way the firmware wants it.
macro_rules! psci {
    ($function:ident ( $($argument:expr),* )) => {
        match METHOD.get() {
            HVC => psci::$function::<Hvc>($($argument),*),
            SMC => psci::$function::<Smc>($($argument),*),
            _ => Err(Error::NotSupported),
        }
    };
}

/// Learns how PSCI is called. A machine without it has one CPU.
pub(super) fn init(tree: Tree<'_>) {
    let method = match tree.psci_method() {
        Some(PsciMethod::Hvc) => HVC,
        Some(PsciMethod::Smc) => SMC,
        None => NONE,
    };
    METHOD.set(method);
}

/// Starts logical CPU `cpu`, which is off. It arrives in `__smpcall_secondary` some time later.
pub(crate) fn start(cpu: u32) -> Result<(), StartError> {
    let id = hw_id(cpu).ok_or(StartError::NoSuchCpu)?;
    if !ipi::has_interface(cpu) && psci!(affinity_info(id, LowestAffinityLevel::All)).is_ok() {
        // It would come up deaf. One that the firmware does not know either is refused below.
        return Err(StartError::NoSuchCpu);
    }
    let entry = (&raw const smpcall_secondary_start).addr() as u64;
    // Everything that this CPU has written is visible to the new one: its first instructions run
    // uncached, and what it reads after that it reads coherently.
    barrier::dsb(barrier::SY);
    psci!(cpu_on(id, entry, u64::from(cpu))).map_err(refused)
}

fn refused(error: Error) -> StartError {
    match error {
        Error::AlreadyOn | Error::OnPending => StartError::AlreadyRunning,
        other => StartError::Firmware(other.into()),
    }
}

/// Where a started CPU comes from `boot.S`: at EL1, MMU on, on its stack, interrupts off.
pub(super) extern "C" fn secondary_main(cpu: u64) -> ! {
    let cpu = cpu as u32;
    percpu::install(cpu);
    ipi::init_cpu(cpu);
    time::init_cpu();
    crate::__smpcall_secondary(cpu)
}

/// The calling CPU leaves. `start` brings it back.
pub(crate) fn stop_self() -> ! {
    irq::save();
    time::interrupt_after(0);
    ipi::leave();
    let _refusal: Result<(), Error> = psci!(cpu_off());
    boot::fail("the firmware refused CPU_OFF")
}

/// Whether `cpu` is off, so that nothing uses its stack and it may be started again.
pub(crate) fn is_stopped(cpu: u32) -> bool {
    let Some(id) = hw_id(cpu) else { return false };
    psci!(affinity_info(id, LowestAffinityLevel::All)) == Ok(AffinityState::Off)
}

/// Ends the machine without a code.
pub(super) fn system_off() {
    let _: Result<(), Error> = psci!(system_off());
}

/// Starts the machine anew.
pub(super) fn system_reset() {
    let _: Result<(), Error> = psci!(system_reset());
}

fn hw_id(cpu: u32) -> Option<u64> {
    boot::info().hw_ids.get(cpu as usize).copied()
}
