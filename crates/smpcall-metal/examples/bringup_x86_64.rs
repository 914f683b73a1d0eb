//! Bring-up test of the x86_64 port, without smpcall: starts, stops, IPIs, the timer, and their cost.
//!
//! Word `test=` of the command line: `all` (default), `icount` (costs; two CPUs, under
//! `-icount shift=0,sleep=off`), `sweep` (the timer over the doorbell; three CPUs, `-icount` as above
//! and `-accel tcg,one-insn-per-tb=on`), `fault`, `overflow`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(all(target_os = "none", target_arch = "x86_64")))]
fn main() {}

#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod image {
    use core::fmt::{self, Write};
    use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};

    use smpcall_metal::{Boot, MAX_CPUS, kernel, raw};

    kernel!(main: main, secondary: secondary, ipi: ipi, timer: timer);

    const IPIS: u32 = 1000;
    const RESTARTS: u32 = 1000;
    const DEADLINE_NS: u64 = 10_000_000_000;

    static RECEIVED: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
    static ONLINE: AtomicU32 = AtomicU32::new(0);
    static STOP: AtomicU32 = AtomicU32::new(u32::MAX);
    static BUSY: AtomicBool = AtomicBool::new(false);
    static TIMER_PC: AtomicU64 = AtomicU64::new(0);
    static TIMERS: AtomicU32 = AtomicU32::new(0);
    static STAMP: AtomicU64 = AtomicU64::new(0);
    static FLAG: AtomicBool = AtomicBool::new(false);
    static SWEEP: AtomicBool = AtomicBool::new(false);
    static HANDED_OVER: AtomicBool = AtomicBool::new(false);
    static MEASURE: AtomicBool = AtomicBool::new(false);

    struct Console;
    impl Write for Console {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            raw::console_write(text.as_bytes());
            Ok(())
        }
    }
    macro_rules! say {
        ($($t:tt)*) => { let _ = writeln!(Console, $($t)*); };
    }

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
        say!("CPU {}: {info}", raw::current_cpu());
        raw::exit(1)
    }

    fn ipi() {
        if MEASURE.load(SeqCst) {
            STAMP.store(raw::instructions(), SeqCst);
            FLAG.store(true, SeqCst);
            return;
        }
        assert!(!raw::irq_enabled());
        RECEIVED[raw::current_cpu() as usize].fetch_add(1, SeqCst);
    }

    fn timer(pc: u64) {
        assert!(!raw::irq_enabled());
        TIMER_PC.store(pc, SeqCst);
        TIMERS.fetch_add(1, SeqCst);
        if SWEEP.load(SeqCst) {
            raw::send_ipi(2);
        }
    }

    fn secondary(cpu: u32) -> ! {
        assert!(
            !raw::irq_enabled(),
            "a secondary arrives with interrupts off"
        );
        assert_eq!(cpu, raw::current_cpu());
        ONLINE.fetch_add(1, SeqCst);
        idle(cpu)
    }

    fn idle(cpu: u32) -> ! {
        loop {
            if STOP.load(SeqCst) == cpu {
                raw::stop_self();
            }
            if cpu == 1 && HANDED_OVER.load(SeqCst) {
                restarts(raw::info().hw_ids.len(), 0);
                say!("bringup: ok");
                raw::exit(0);
            }
            if BUSY.load(SeqCst) {
                raw::irq_enable();
                while BUSY.load(SeqCst) {
                    raw::relax();
                }
                raw::irq_save();
            }
            raw::wait_for_interrupt();
            assert!(!raw::irq_enabled());
        }
    }

    fn wait_until(what: &str, done: impl Fn() -> bool) {
        let start = raw::now_ns();
        while !done() {
            raw::relax();
            if raw::now_ns() - start > DEADLINE_NS {
                for (cpu, received) in RECEIVED.iter().enumerate() {
                    if received.load(SeqCst) != 0 {
                        say!("CPU {cpu} received {}", received.load(SeqCst));
                    }
                }
                panic!("timed out: {what}");
            }
        }
    }

    fn main(boot: &'static Boot) -> ! {
        assert!(
            !raw::irq_enabled(),
            "the boot CPU arrives with interrupts off"
        );
        let test = boot
            .cmdline
            .split(' ')
            .filter_map(|w| w.strip_prefix("test="))
            .last();
        let start = raw::cycles();
        let start_ns = raw::now_ns();
        say!("command line: {}", boot.cmdline);
        say!("{} CPUs: {:x?}", boot.hw_ids.len(), boot.hw_ids);
        match test {
            Some("fault") => {
                // SAFETY: 1. Meant to fault.
                unsafe { core::ptr::without_provenance::<u64>(1 << 40).read_volatile() };
            }
            Some("overflow") => {
                overflow(0);
            }
            Some("sweep") => {
                start_all(boot);
                sweep();
            }
            Some("icount") => {
                start_all(boot);
                costs();
            }
            _ => {
                start_all(boot);
                single(boot.hw_ids.len());
                masks(boot.hw_ids.len());
                timers();
                restarts(boot.hw_ids.len(), 1);
                if boot.hw_ids.len() > 1 {
                    HANDED_OVER.store(true, SeqCst);
                    raw::send_ipi(1);
                    idle(0);
                }
            }
        }
        let cycles = raw::cycles() - start;
        say!(
            "{} cycles in {} us",
            cycles,
            (raw::now_ns() - start_ns) / 1000
        );
        say!("bringup: ok");
        raw::exit(0)
    }

    #[expect(unconditional_recursion, reason = "meant to overflow the stack")]
    #[inline(never)]
    fn overflow(depth: u64) -> u64 {
        let array = core::hint::black_box([depth; 64]);
        overflow(depth + 1) + array[0]
    }

    fn start_all(boot: &Boot) {
        let absent = boot.cmdline.contains("absent=");
        let count = boot.hw_ids.len() as u32;
        let start_ns = raw::now_ns();
        for cpu in 1..count {
            raw::start(cpu).unwrap();
            let last_and_absent = absent && cpu == count - 1;
            if last_and_absent {
                let start = raw::now_ns();
                while raw::now_ns() - start < 20_000_000 {
                    raw::relax();
                }
                assert_eq!(ONLINE.load(SeqCst), cpu - 1);
                assert!(!raw::is_stopped(cpu));
                say!("CPU {cpu} never came, as it should");
            } else {
                wait_until("start", || ONLINE.load(SeqCst) == cpu);
                assert_eq!(
                    raw::start(cpu),
                    Err(smpcall_metal::StartError::AlreadyRunning)
                );
            }
        }
        assert_eq!(raw::start(count), Err(smpcall_metal::StartError::NoSuchCpu));
        let online = ONLINE.load(SeqCst) + 1;
        say!(
            "Brought up {online} CPUs in {} us",
            (raw::now_ns() - start_ns) / 1000
        );
        if absent {
            raw::exit(0);
        }
    }

    fn single(count: usize) {
        for cpu in 1..count {
            let start = raw::now_ns();
            for n in 1..=IPIS {
                raw::send_ipi(cpu as u32);
                wait_until("single", || RECEIVED[cpu].load(SeqCst) == n);
            }
            if cpu < 9 {
                say!(
                    "CPU {cpu}: {} ns an IPI",
                    (raw::now_ns() - start) / u64::from(IPIS)
                );
            }
        }
        clear();
    }

    fn clear() {
        for received in &RECEIVED {
            received.store(0, SeqCst);
        }
    }

    fn masks(count: usize) {
        if count == 1 {
            return;
        }
        let mut seed = 1_u64;
        let mut expected = [0; MAX_CPUS];
        let start = raw::now_ns();
        for round in 0..IPIS {
            let mut mask = [0_u64; MAX_CPUS / 64];
            for (cpu, expected) in expected.iter_mut().enumerate().take(count).skip(1) {
                seed = seed
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                if round % 4 == 0 || seed >> 63 == 1 {
                    mask[cpu / 64] |= 1 << (cpu % 64);
                    *expected += 1;
                }
            }
            raw::send_ipi_mask(&mask);
            wait_until("mask", || {
                (1..count).all(|cpu| RECEIVED[cpu].load(SeqCst) == expected[cpu])
            });
        }
        say!(
            "masks: {} ns each",
            (raw::now_ns() - start) / u64::from(IPIS)
        );
        clear();
    }

    fn restarts(count: usize, cpu: u32) {
        if count == 1 {
            return;
        }
        let start = raw::now_ns();
        for _ in 0..RESTARTS {
            let online = ONLINE.load(SeqCst);
            STOP.store(cpu, SeqCst);
            raw::send_ipi(cpu);
            wait_until("stop", || raw::is_stopped(cpu));
            STOP.store(u32::MAX, SeqCst);
            raw::start(cpu).unwrap();
            wait_until("restart", || ONLINE.load(SeqCst) == online + 1);
            let received = RECEIVED[cpu as usize].load(SeqCst);
            raw::send_ipi(cpu);
            wait_until("IPI after restart", || {
                RECEIVED[cpu as usize].load(SeqCst) == received + 1
            });
        }
        say!(
            "{RESTARTS} restarts of CPU {cpu}, {} us each",
            (raw::now_ns() - start) / 1000 / u64::from(RESTARTS)
        );
        clear();
    }

    fn timers() {
        for cycles in [1, 100, 10_000, 1_000_000] {
            let before = TIMERS.load(SeqCst);
            let start = raw::cycles();
            raw::interrupt_after(cycles);
            while TIMERS.load(SeqCst) == before {
                raw::wait_for_interrupt();
            }
            say!("timer {cycles}: after {} cycles", raw::cycles() - start);
        }
        raw::interrupt_after(1_000_000);
        raw::interrupt_after(0);
        let before = TIMERS.load(SeqCst);
        raw::irq_enable();
        let start = raw::now_ns();
        while raw::now_ns() - start < 20_000_000 {
            raw::relax();
        }
        assert_eq!(TIMERS.load(SeqCst), before, "a disarmed timer keeps quiet");
        raw::interrupt_after(100_000);
        wait_until("timer while busy", || TIMERS.load(SeqCst) == before + 1);
        let pc = TIMER_PC.load(SeqCst);
        say!("timer interrupted {pc:#x}");
        assert!(raw::irq_save());
    }

    /// Interrupts a send at each of its instructions with a handler that sends as well.
    fn sweep() {
        SWEEP.store(true, SeqCst);
        raw::irq_enable();
        let (mut last, mut places) = (0, 0);
        for delay in 1..400 {
            let count = |cpu: usize| RECEIVED[cpu].load(SeqCst);
            let (one, two, timers) = (count(1), count(2), TIMERS.load(SeqCst));
            raw::interrupt_after(delay);
            raw::send_ipi(1);
            wait_until("timer", || TIMERS.load(SeqCst) == timers + 1);
            wait_until("both", || count(1) == one + 1 && count(2) == two + 1);
            let pc = TIMER_PC.load(SeqCst);
            if pc != last {
                places += 1;
                say!("{delay}: {pc:#x}");
            }
            last = pc;
        }
        raw::irq_save();
        SWEEP.store(false, SeqCst);
        say!("interrupted at {places} places");
    }

    fn costs() {
        let mut empty = u64::MAX;
        for _ in 0..10 {
            let start = raw::instructions();
            empty = empty.min(raw::instructions() - start);
        }
        say!("empty sample {empty}");
        let start = raw::instructions();
        for _ in 0..1000 {
            core::hint::black_box(raw::current_cpu());
        }
        say!("current and loop {} / 1000", raw::instructions() - start);
        let start = raw::instructions();
        for _ in 0..1000 {
            raw::irq_restore(raw::irq_save());
        }
        say!(
            "irq save, restore and loop {} / 1000",
            raw::instructions() - start
        );
        MEASURE.store(true, SeqCst);
        for busy in [false, true] {
            BUSY.store(busy, SeqCst);
            if busy {
                raw::send_ipi(1);
                wait_until("busy", || FLAG.load(SeqCst));
                for _ in 0..100 {
                    raw::relax();
                }
            }
            let mut there = [0; 51];
            let mut back = [0; 51];
            for i in 0..51 {
                for _ in 0..20 {
                    raw::relax();
                }
                FLAG.store(false, SeqCst);
                let start = raw::instructions();
                raw::send_ipi(1);
                while !FLAG.load(SeqCst) {
                    raw::relax();
                }
                let end = raw::instructions();
                there[i] = STAMP.load(SeqCst) - start;
                back[i] = end - start;
            }
            there.sort_unstable();
            back.sort_unstable();
            let name = if busy { "busy" } else { "halted" };
            say!(
                "{name}: to the handler {} {} {}",
                there[0],
                there[25],
                there[50]
            );
            say!("{name}: round trip {} {} {}", back[0], back[25], back[50]);
        }
        let start = raw::instructions();
        raw::send_ipi_mask(&[2, 0]);
        say!("send_mask of one {}", raw::instructions() - start);
        let start = raw::instructions();
        raw::send_ipi(1);
        say!("send {}", raw::instructions() - start);
    }
}
