//! Exercises the riscv64 port alone, without the call core.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(all(target_os = "none", target_arch = "riscv64")))]
fn main() {}

#[cfg(all(target_os = "none", target_arch = "riscv64"))]
mod image {
    use core::fmt::Write as _;
    use core::hint::black_box;
    use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
    use smpcall_metal::{Boot, MAX_CPUS, raw};

    struct Out;
    impl core::fmt::Write for Out {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            raw::console_write(text.as_bytes());
            Ok(())
        }
    }
    macro_rules! say { ($($t:tt)*) => { let _ = writeln!(Out, $($t)*); } }

    static UP: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
    static GOT: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
    static SUM: AtomicU64 = AtomicU64::new(0);
    static TIMER: AtomicU64 = AtomicU64::new(0);
    static TIMER_PC: AtomicU64 = AtomicU64::new(0);
    /// 0 idle, 1 leave, 2 busy
    static ORDER: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

    smpcall_metal::kernel!(main: main, secondary: secondary, ipi: ipi, timer: timer);

    fn ipi() {
        assert!(!raw::irq_enabled());
        GOT[raw::current_cpu() as usize].fetch_add(1, SeqCst);
        SUM.fetch_add(1, SeqCst);
    }

    fn timer(pc: u64) {
        assert!(!raw::irq_enabled());
        TIMER_PC.store(pc, SeqCst);
        TIMER.fetch_add(1, SeqCst);
    }

    fn secondary(cpu: u32) -> ! {
        assert!(!raw::irq_enabled());
        assert_eq!(cpu, raw::current_cpu());
        let me = cpu as usize;
        UP[me].fetch_add(1, SeqCst);
        loop {
            match ORDER[me].load(SeqCst) {
                0 => raw::wait_for_interrupt(),
                1 => {
                    ORDER[me].store(0, SeqCst);
                    raw::stop_self()
                }
                _ => {
                    raw::irq_enable();
                    while ORDER[me].load(SeqCst) == 2 {
                        raw::relax();
                    }
                    raw::irq_save();
                }
            }
        }
    }

    fn wait(what: &str, cond: impl Fn() -> bool) {
        let end = raw::now_ns() + 20_000_000_000;
        while !cond() {
            raw::relax();
            if raw::now_ns() > end {
                say!("TIMEOUT waiting for {what}");
                raw::exit(1);
            }
        }
    }

    fn mask_of(range: core::ops::Range<usize>) -> [u64; MAX_CPUS / 64] {
        let mut mask = [0; MAX_CPUS / 64];
        range.for_each(|i| mask[i / 64] |= 1 << (i % 64));
        mask
    }

    fn main(boot: &'static Boot) -> ! {
        let n = boot.hw_ids.len();
        say!("cmdline [{}] harts {:?}", boot.cmdline, boot.hw_ids);
        let word = |name: &str| boot.cmdline.split(' ').any(|w| w == name);
        let number = |name: &str, default: u64| {
            let mut words = boot.cmdline.split(' ');
            words
                .find_map(|w| w.strip_prefix(name)?.parse().ok())
                .unwrap_or(default)
        };
        let rounds = number("rounds=", 1000);
        let restarts = number("restarts=", 1000) as u32;
        assert!(!raw::irq_enabled());
        assert_eq!(raw::current_cpu(), 0);
        if word("fault") {
            // SAFETY: None: that is the test.
            unsafe { core::ptr::without_provenance::<u32>(0x20_0000).read_volatile() };
        }
        let t = (raw::instructions(), raw::now_ns());
        if word("overflow") {
            black_box(overflow(1));
        }
        if word("float") {
            black_box(black_box(1.5f64) * black_box(n as f64));
        }
        if word("ebreak") {
            // SAFETY: None: that is the test.
            unsafe { core::arch::asm!("ebreak") };
        }
        for cpu in 1..n {
            if let Err(error) = raw::start(cpu as u32) {
                say!("CPU {cpu} refused: {error:?}");
                raw::exit(3);
            }
            wait("start", || UP[cpu].load(SeqCst) == 1);
        }
        let t = (raw::instructions() - t.0, raw::now_ns() - t.1);
        say!(
            "Brought up {n} CPUs in {} instructions, {} ms",
            t.0,
            t.1 / 1_000_000
        );
        say!(
            "start of a running one: {:?}; of none: {:?}",
            raw::start(n as u32 - 1),
            raw::start(600)
        );
        for order in [0, 2] {
            singles(n, rounds, order);
            masks(n, rounds, order);
        }
        own();
        if n > 1 && restarts > 0 {
            set_order(n, 0);
            restart(restarts);
        }
        timers();
        counts(n);
        say!("done");
        raw::exit(number("code=", 0) as u8)
    }

    #[expect(unconditional_recursion, reason = "that is the test")]
    fn overflow(n: u64) -> u64 {
        black_box([n; 64]);
        overflow(n + 1) + 1
    }

    fn set_order(n: usize, order: u32) {
        for cpu in 1..n {
            ORDER[cpu].store(order, SeqCst);
            raw::send_ipi(cpu as u32);
        }
    }

    fn singles(n: usize, rounds: u64, order: u32) {
        set_order(n, order);
        let t = raw::now_ns();
        for cpu in 1..n {
            for _ in 0..rounds {
                let before = GOT[cpu].load(SeqCst);
                raw::send_ipi(cpu as u32);
                wait("single", || GOT[cpu].load(SeqCst) > before);
            }
        }
        say!(
            "singles order {order}: {} ms",
            (raw::now_ns() - t) / 1_000_000
        );
    }

    fn masks(n: usize, rounds: u64, order: u32) {
        let t = raw::now_ns();
        let mask = mask_of(1..n);
        for _ in 0..rounds {
            let before: [u64; MAX_CPUS] = core::array::from_fn(|i| GOT[i].load(SeqCst));
            raw::send_ipi_mask(&mask);
            for cpu in 1..n {
                wait("mask", || GOT[cpu].load(SeqCst) > before[cpu]);
            }
        }
        say!(
            "masks order {order}: {} ms",
            (raw::now_ns() - t) / 1_000_000
        );
    }

    fn own() {
        let before = GOT[0].load(SeqCst);
        raw::send_ipi(0);
        assert_eq!(GOT[0].load(SeqCst), before);
        raw::irq_enable();
        wait("own", || GOT[0].load(SeqCst) == before + 1);
        assert!(raw::irq_save());
        assert!(!raw::irq_save());
        raw::irq_restore(false);
        assert!(!raw::irq_enabled());
        raw::send_ipi_mask(&[1]);
        raw::wait_for_interrupt();
        assert_eq!(GOT[0].load(SeqCst), before + 2);
        assert!(!raw::irq_enabled());
    }

    fn restart(rounds: u32) {
        let t = raw::now_ns();
        for round in 0..rounds {
            let up = UP[1].load(SeqCst);
            ORDER[1].store(1, SeqCst);
            raw::send_ipi(1);
            wait("stop", || raw::is_stopped(1));
            raw::send_ipi(1); // an IPI to a stopped CPU is nothing
            if let Err(error) = raw::start(1) {
                say!("restart {round}: {error:?}");
                raw::exit(1);
            }
            wait("restart", || UP[1].load(SeqCst) == up + 1);
            let got = GOT[1].load(SeqCst);
            raw::send_ipi(1);
            wait("IPI after restart", || GOT[1].load(SeqCst) == got + 1);
        }
        say!(
            "restarts: {rounds} in {} ms",
            (raw::now_ns() - t) / 1_000_000
        );
    }

    fn timers() {
        raw::irq_enable();
        let before = TIMER.load(SeqCst);
        for i in 0..100 {
            raw::interrupt_after(1000);
            wait("timer", || TIMER.load(SeqCst) == before + i + 1);
        }
        raw::interrupt_after(100_000);
        raw::interrupt_after(0);
        let t = raw::cycles();
        while raw::cycles() < t + 150_000 {
            raw::relax();
        }
        assert_eq!(TIMER.load(SeqCst), before + 100);
        raw::irq_save();
        raw::interrupt_after(1000);
        raw::wait_for_interrupt();
        assert_eq!(TIMER.load(SeqCst), before + 101);
        say!("timer: last pc {:#x}", TIMER_PC.load(SeqCst));
    }

    fn measure(name: &str, mut f: impl FnMut()) {
        let mut samples = [0; 101];
        for s in &mut samples {
            let t = raw::instructions();
            f();
            *s = raw::instructions() - t;
        }
        samples.sort_unstable();
        let (min, median, max) = (samples[0], samples[50], samples[100]);
        say!("icount {name}: median {median} min {min} max {max}");
    }

    fn counts(n: usize) {
        measure("empty", || ());
        measure("current", || {
            black_box(raw::current_cpu());
        });
        measure("save+restore", || raw::irq_restore(raw::irq_save()));
        measure("relax", raw::relax);
        measure("cycles", || {
            black_box(raw::cycles());
        });
        raw::irq_save();
        raw::irq_enable();
        measure("own IPI, trap", || {
            let before = GOT[0].load(SeqCst);
            raw::send_ipi(0);
            while GOT[0].load(SeqCst) == before {
                raw::relax();
            }
        });
        raw::irq_save();
        measure("own IPI, wait_for_interrupt", || {
            raw::send_ipi(0);
            raw::wait_for_interrupt();
        });
        if n == 1 {
            return;
        }
        for (order, name) in [(0, "idle"), (2, "busy")] {
            set_order(n, order);
            for _ in 0..100 {
                raw::relax();
            }
            say!("targets {name}");
            measure("send", || raw::send_ipi(1));
            measure("send and wait", || {
                let before = GOT[1].load(SeqCst);
                raw::send_ipi(1);
                while GOT[1].load(SeqCst) == before {
                    raw::relax();
                }
            });
            let mask = mask_of(1..n);
            let words = &mask[..n.div_ceil(64)];
            measure("mask send", || raw::send_ipi_mask(words));
            measure("mask send and wait", || {
                SUM.store(0, SeqCst);
                raw::send_ipi_mask(words);
                while SUM.load(SeqCst) < n as u64 - 1 {
                    raw::relax();
                }
            });
        }
    }

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
        say!("panic on CPU {}: {info}", raw::current_cpu());
        raw::exit(1)
    }
}
