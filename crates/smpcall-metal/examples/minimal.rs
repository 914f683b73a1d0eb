//! A kernel in one file: what a user of `smpcall-metal` writes, and nothing else.
//!
//! It brings all CPUs up, runs functions on them, and ends the virtual machine. The same file is a
//! kernel on x86_64, aarch64 and riscv64. Boot it: `cargo xtask qemu --arch riscv64 --smp 4 --example
//! minimal`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("a kernel: cargo xtask qemu --arch x86_64 --smp 4 --example minimal");
}

#[cfg(target_os = "none")]
mod kernel {
    use core::panic::PanicInfo;
    use core::sync::atomic::{AtomicU64, Ordering};

    use smpcall::{BootParams, CpuId, CpuMask, Smp};
    use smpcall_metal::{Boot, MAX_CPUS, Metal, WORDS, println, raw};

    /// The library's instance: one, and the whole kernel knows it.
    static SMP: Smp<Metal, WORDS> = Smp::new(Metal);

    // The four ways in. The IPI's is the library's own.
    smpcall_metal::kernel!(main: main, secondary: secondary, ipi: ipi, timer: timer);

    /// The boot CPU, interrupts off.
    fn main(boot: &'static Boot) -> ! {
        // `nosmp`, `nr_cpus=` and `maxcpus=` are on the command line.
        let params = BootParams::parse(boot.cmdline, MAX_CPUS as u32);
        let params = params.unwrap_or_else(|bad| {
            println!("{bad}");
            raw::exit(1)
        });
        // The CPUs are numbered from 0, the boot CPU is 0. From here on it takes calls.
        let present = CpuMask::first_n(boot.hw_ids.len());
        SMP.init(&present, &present, &params);
        raw::irq_enable();
        // Starts the others, one after another; each arrives in `secondary`.
        SMP.bring_up();
        let ok = work();
        println!("smpcall: end {}", if ok { "ok" } else { "failed" });
        raw::exit(u8::from(!ok))
    }

    /// Any other CPU, each time it is started; interrupts off.
    fn secondary(_cpu: u32) -> ! {
        if SMP.online_this_cpu() {
            idle();
        }
        raw::stop_self()
    }

    /// Halts until there is something to do. Returns when the CPU has been asked to leave, and has.
    fn idle() {
        loop {
            if SMP.has_tasks() {
                raw::irq_enable();
                SMP.run_tasks();
                raw::irq_save();
            } else if SMP.is_asked_to_leave() {
                raw::irq_enable();
                if SMP.leave_if_asked() {
                    return;
                }
                raw::irq_save();
            } else {
                // Interrupts are off, so nothing comes between the looks above and the sleep.
                raw::wait_for_interrupt();
            }
        }
    }

    /// The call-function interrupt: acknowledged, interrupts off.
    fn ipi() {
        SMP.handle_ipi();
    }

    /// A one-shot timer that nobody here arms.
    fn timer(_pc: u64) {}

    /// The kernel's business.
    fn work() -> bool {
        let cpus = SMP.online_cpus();
        let last = cpus.last().unwrap_or(CpuId::new(0));
        // A function on one CPU: waits, borrows this stack, and brings a result back.
        let mut greeting = [0; 3];
        let there = SMP.call(last, || {
            greeting.copy_from_slice(b"hi!");
            raw::current_cpu()
        });
        println!("a call to CPU {last} ran on {there:?}");
        // On every CPU, this one too; and only where a predicate wants it.
        let visits = AtomicU64::new(0);
        let visit = |_| {
            // ORDERING: Relaxed — the call orders it before the load below.
            visits.fetch_add(1, Ordering::Relaxed);
        };
        let all = SMP.on_each_cpu(visit);
        let odd = SMP.on_each_cpu_cond(|cpu| cpu.get() % 2 == 1, visit);
        let visits = visits.load(Ordering::Relaxed);
        println!("{visits} visits: all {all:?}, odd {odd:?}");
        // One that is not waited for, and the wait for everything that was posted there.
        let posted = SMP.post(last, || println!("posted, on CPU {}", raw::current_cpu()));
        let flushed = SMP.flush(last);
        // A CPU leaves for good, and comes back.
        let restarted = last.get() == 0
            || (SMP.cpu_down(last).is_ok()
                && SMP.call(last, || ()).is_err()
                && SMP.cpu_up(last).is_ok());
        there.is_ok_and(|there| there == last.get())
            && greeting == *b"hi!"
            && all.is_ok_and(|all| all == cpus)
            && odd.is_ok_and(|odd| visits == (cpus.len() + odd.len()) as u64)
            && posted.is_ok()
            && flushed.is_ok()
            && restarted
            && SMP.online_cpus() == cpus
    }

    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        println!("panic on CPU {}: {info}", raw::current_cpu());
        raw::exit(1)
    }
}
