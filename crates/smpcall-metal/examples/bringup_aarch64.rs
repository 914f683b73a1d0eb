//! Brings the aarch64 port up without the core: every promise of its contract, once.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(all(target_os = "none", target_arch = "aarch64")))]
fn main() {}

#[cfg(all(target_os = "none", target_arch = "aarch64"))]
mod bringup {
    use core::fmt::{self, Write as _};
    use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

    use smpcall_metal::{Boot, MAX_CPUS, StartError, raw};

    smpcall_metal::kernel!(main: main, secondary: secondary, ipi: on_ipi, timer: on_timer);

    struct Console;

    impl fmt::Write for Console {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            raw::console_write(text.as_bytes());
            Ok(())
        }
    }

    macro_rules! say {
        ($($argument:tt)*) => { let _ = writeln!(Console, $($argument)*); };
    }

    #[panic_handler]
    fn on_panic(info: &core::panic::PanicInfo<'_>) -> ! {
        say!("CPU {}: {info}", raw::current_cpu());
        raw::exit(1)
    }

    static ONLINE: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];
    static STOP: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];
    static BUSY: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];
    static IPIS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
    static TIMER_PC: AtomicU64 = AtomicU64::new(0);
    static TIMERS: AtomicU32 = AtomicU32::new(0);

    fn on_ipi() {
        IPIS[raw::current_cpu() as usize].fetch_add(1, Ordering::SeqCst);
    }

    fn on_timer(pc: u64) {
        TIMER_PC.store(pc, Ordering::SeqCst);
        TIMERS.fetch_add(1, Ordering::SeqCst);
    }

    fn secondary(cpu: u32) -> ! {
        assert!(!raw::irq_enabled(), "a started CPU has interrupts off");
        assert_eq!(raw::current_cpu(), cpu);
        let id = cpu as usize;
        ONLINE[id].store(true, Ordering::SeqCst);
        while !STOP[id].load(Ordering::SeqCst) {
            if BUSY[id].load(Ordering::SeqCst) {
                raw::irq_restore(true);
                raw::relax();
                assert!(raw::irq_save());
            } else {
                raw::wait_for_interrupt();
            }
        }
        ONLINE[id].store(false, Ordering::SeqCst);
        raw::stop_self()
    }

    /// Waits until `done`, at most ten seconds.
    fn wait_for(what: &str, done: impl Fn() -> bool) {
        let deadline = raw::now_ns() + 10_000_000_000;
        while !done() {
            assert!(raw::now_ns() < deadline, "too long: {what}");
            raw::relax();
        }
    }

    fn count(cpu: usize) -> u32 {
        IPIS[cpu].load(Ordering::SeqCst)
    }

    fn start(cpu: usize) {
        STOP[cpu].store(false, Ordering::SeqCst);
        raw::start(cpu as u32).expect("the CPU is there");
        wait_for("a CPU to come up", || ONLINE[cpu].load(Ordering::SeqCst));
    }

    fn stop(cpu: usize) {
        STOP[cpu].store(true, Ordering::SeqCst);
        raw::send_ipi(cpu as u32);
        wait_for("a CPU to stop", || raw::is_stopped(cpu as u32));
    }

    fn main(boot: &'static Boot) -> ! {
        let cpus = boot.hw_ids.len();
        say!("command line: {:?}", boot.cmdline);
        say!("{cpus} CPUs, first ids {:x?}", &boot.hw_ids[..cpus.min(20)]);
        assert!(!raw::irq_enabled(), "the boot CPU has interrupts off");
        assert_eq!(raw::current_cpu(), 0);
        let from = raw::now_ns();
        (1..cpus).for_each(start);
        say!(
            "Brought up {cpus} CPUs in {} us",
            (raw::now_ns() - from) / 1000
        );
        assert_eq!(raw::start(cpus as u32), Err(StartError::NoSuchCpu));
        if cpus > 1 {
            assert_eq!(raw::start(1), Err(StartError::AlreadyRunning));
        }
        let rounds = if cpus > 16 { 100 } else { 1000 };
        ipis(cpus, rounds);
        timer();
        if cpus > 1 {
            restarts(cpus, 1000);
            measure(cpus);
            sweep();
        }
        crash(boot.cmdline);
        say!("smpcall: end ok");
        raw::exit(0)
    }

    fn ipis(cpus: usize, rounds: u32) {
        for cpu in 1..cpus {
            for round in 0..rounds {
                BUSY[cpu].store(round % 2 == 1, Ordering::SeqCst);
                let before = count(cpu);
                raw::send_ipi(cpu as u32);
                wait_for("an IPI", || count(cpu) == before + 1);
            }
            BUSY[cpu].store(false, Ordering::SeqCst);
        }
        say!("{rounds} IPIs to each");
        let mut mask = [0_u64; MAX_CPUS / 64];
        (1..cpus).for_each(|cpu| mask[cpu / 64] |= 1 << (cpu % 64));
        for _ in 0..rounds {
            let before = (1..cpus).map(count).sum::<u32>();
            raw::send_ipi_mask(&mask);
            let after = before + cpus as u32 - 1;
            wait_for("a mask", || (1..cpus).map(count).sum::<u32>() == after);
        }
        say!("{rounds} IPIs by mask");
        for cpu in [0, cpus / 2, cpus - 1] {
            let mut one = [0_u64; MAX_CPUS / 64];
            one[cpu / 64] = 1 << (cpu % 64);
            let before = (0..cpus).map(count).sum::<u32>();
            let of_cpu = count(cpu);
            raw::irq_restore(true);
            raw::send_ipi_mask(&one);
            wait_for("one", || count(cpu) == of_cpu + 1);
            assert!(raw::irq_save());
            assert_eq!((0..cpus).map(count).sum::<u32>(), before + 1);
        }
        say!("masks of one, self too");
    }

    fn timer() {
        for round in 1..=1000 {
            raw::interrupt_after(raw::cycles() % 5000 + 1);
            raw::wait_for_interrupt();
            assert_eq!(TIMERS.load(Ordering::SeqCst), round);
        }
        raw::interrupt_after(1_000_000);
        raw::interrupt_after(0);
        let deadline = raw::now_ns() + 10_000_000;
        raw::irq_restore(true);
        while raw::now_ns() < deadline {
            raw::relax();
        }
        assert!(raw::irq_save());
        assert_eq!(TIMERS.load(Ordering::SeqCst), 1000);
        say!(
            "1000 timers, the last at {:#x}",
            TIMER_PC.load(Ordering::SeqCst)
        );
    }

    fn restarts(cpus: usize, rounds: u32) {
        let other = cpus - 1;
        for _ in 0..rounds {
            if other > 1 {
                raw::send_ipi(other as u32);
            }
            stop(1);
            // To a CPU that is off: it must not come back with it.
            raw::send_ipi(1);
            let before = count(1);
            start(1);
            assert_eq!(count(1), before, "no IPI of an earlier life");
            raw::send_ipi(1);
            wait_for("an IPI after a restart", || count(1) == before + 1);
        }
        say!("{rounds} restarts of CPU 1");
        (1..cpus).for_each(stop);
        (1..cpus).for_each(start);
        say!("all stopped and started");
    }

    fn median(name: &str, mut sample: impl FnMut()) {
        let mut samples = [0_u64; 201];
        for slot in &mut samples {
            let from = raw::instructions();
            sample();
            *slot = raw::instructions() - from;
        }
        samples.sort_unstable();
        say!(
            "instructions {name}: {} (least {}, most {})",
            samples[100],
            samples[0],
            samples[200]
        );
    }

    fn measure(cpus: usize) {
        let from = (raw::instructions(), raw::cycles());
        for _ in 0..1000 {
            raw::relax();
        }
        let to = (raw::instructions(), raw::cycles());
        say!(
            "1000 relax: {} instructions, {} cycles",
            to.0 - from.0,
            to.1 - from.1
        );
        median("empty", || {});
        median("save and restore", || {
            raw::irq_restore(core::hint::black_box(raw::irq_save()));
        });
        median("current", || {
            core::hint::black_box(raw::current_cpu());
        });
        raw::irq_restore(true);
        median("send to self, handler and return", || raw::send_ipi(0));
        assert!(raw::irq_save());
        BUSY[1].store(true, Ordering::SeqCst);
        raw::send_ipi(1);
        wait_for("busy", || count(1) > 0);
        let round_trip = || {
            let before = count(1);
            raw::send_ipi(1);
            while count(1) == before {
                raw::relax();
            }
        };
        let settle = || {
            for _ in 0..1000 {
                raw::relax();
            }
        };
        median("send, one busy", || {
            raw::send_ipi(1);
        });
        settle();
        median("round trip, busy", round_trip);
        BUSY[1].store(false, Ordering::SeqCst);
        raw::send_ipi(1);
        settle();
        median("round trip, halted", || {
            round_trip();
        });
        let mut mask = [0_u64; 1];
        (1..cpus.min(64)).for_each(|cpu| mask[0] |= 1 << cpu);
        median("send_mask, all others of the first 64", || {
            raw::send_ipi_mask(&mask);
        });
    }

    /// Interrupts the way to another CPU's doorbell after one tick, two ticks, and so on.
    fn sweep() {
        let mut seen = [0_u64; 256];
        let mut distinct = 0;
        for ticks in 1..200 {
            let before = (count(1), TIMERS.load(Ordering::SeqCst));
            raw::interrupt_after(ticks);
            raw::irq_restore(true);
            raw::send_ipi(core::hint::black_box(1));
            wait_for("the IPI and the timer", || {
                count(1) == before.0 + 1 && TIMERS.load(Ordering::SeqCst) == before.1 + 1
            });
            assert!(raw::irq_save());
            let pc = TIMER_PC.load(Ordering::SeqCst);
            if !seen[..distinct].contains(&pc) {
                seen[distinct] = pc;
                distinct += 1;
            }
        }
        seen[..distinct].sort_unstable();
        say!(
            "199 timers over one send, at {distinct} places, the first {:x?}",
            &seen[..distinct.min(40)]
        );
    }

    /// What the command line asks for: each must end in a report and exit code 1.
    fn crash(command_line: &str) {
        let Some((_, kind)) = command_line.split_once("crash=") else {
            return;
        };
        say!("crash: {kind}");
        match kind {
            // SAFETY: not safe at all, which is the point; it does not come back.
            "load" => unsafe {
                core::arch::asm!("ldr x0, [{}]", in(reg) 0x60_0000_1234_u64, out("x0") _)
            },
            // SAFETY: as above.
            "undefined" => unsafe { core::arch::asm!("udf #0") },
            // SAFETY: as above.
            "stack" => unsafe {
                core::arch::asm!("mov sp, {}", "str x0, [sp, #-16]!", in(reg) 8_u64)
            },
            // SAFETY: as above.
            "simd" => unsafe { core::arch::asm!(".arch_extension fp", "fmov d0, xzr") },
            _ => panic!("no such crash"),
        }
    }
}
