//! TLB shootdown: a page changes hands, and no CPU goes on using what it was.
//!
//! Every second CPU loads an address space with one more page, and reads it; its TLB keeps where the page
//! is. Then the page is given another frame, again and again, and each time those CPUs, and nobody else,
//! are made to forget. Boot it: `cargo xtask qemu --arch aarch64 --smp 4 --example tlb_shootdown`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("a kernel: cargo xtask qemu --arch x86_64 --smp 4 --example tlb_shootdown");
}

#[cfg(target_os = "none")]
mod kernel {
    use core::panic::PanicInfo;
    use core::sync::atomic::{AtomicU64, Ordering};

    use smpcall::{BootParams, CallError, CpuId, CpuMask, Smp};
    use smpcall_metal::raw::{self, Frame};
    use smpcall_metal::{Boot, MAX_CPUS, Metal, WORDS, println};

    static SMP: Smp<Metal, WORDS> = Smp::new(Metal);

    smpcall_metal::kernel!(main: main, secondary: secondary, ipi: ipi, timer: timer);

    /// Two frames that say which they are.
    static FRAMES: [Frame; 2] = [frame(111), frame(222)];

    const fn frame(says: u64) -> Frame {
        let mut words = [const { AtomicU64::new(0) }; 512];
        words[0] = AtomicU64::new(says);
        Frame(words)
    }

    /// Who has the address space loaded. A kernel keeps a mask with each address space.
    fn is_user(cpu: CpuId) -> bool {
        cpu.get().is_multiple_of(2)
    }

    /// The users forget the page; answers who they were.
    fn shoot_down() -> Result<CpuMask<WORDS>, CallError> {
        // Asked here, for each CPU, before anything is sent: the others are not interrupted.
        Ok(SMP.on_each_cpu_cond(is_user, |_| raw::page_flush())?)
    }

    /// Maps the page to a frame, for everybody.
    fn give(frame: &'static Frame) -> Result<CpuMask<WORDS>, CallError> {
        if raw::BREAK_FIRST {
            // aarch64: between two frames there must be none, in every TLB.
            raw::page_map(None);
            shoot_down()?;
        }
        raw::page_map(Some(frame));
        // From here on the old frame may be used for something else.
        shoot_down()
    }

    /// How many users do not see this frame?
    fn stale(frame: &Frame) -> Result<u64, CallError> {
        let stale = AtomicU64::new(0);
        SMP.on_each_cpu_cond(is_user, |_| {
            // ORDERING: Relaxed — the call orders these before the load below.
            let old = raw::page_read() != frame.0[0].load(Ordering::Relaxed);
            stale.fetch_add(u64::from(old), Ordering::Relaxed);
        })?;
        Ok(stale.load(Ordering::Relaxed))
    }

    fn work() -> Result<bool, CallError> {
        raw::page_build();
        raw::page_map(Some(&FRAMES[0]));
        let users = SMP.on_each_cpu_cond(is_user, |_| raw::page_enter())?;
        let mut wrong = stale(&FRAMES[0])?;
        for round in 1..=100 {
            let frame = &FRAMES[round % 2];
            let called = give(frame)?;
            wrong += u64::from(called != users) + stale(frame)?;
        }
        SMP.on_each_cpu_cond(is_user, |_| raw::page_leave())?;
        println!("100 shootdowns on CPUs {users}: {wrong} times somebody saw the old page");
        Ok(wrong == 0)
    }

    /// The boot CPU; `minimal` says what each line is for.
    fn main(boot: &'static Boot) -> ! {
        let params = BootParams::parse(boot.cmdline, MAX_CPUS as u32);
        let params = params.unwrap_or_else(|_| BootParams::unlimited(MAX_CPUS as u32));
        let present = CpuMask::first_n(boot.hw_ids.len());
        SMP.init(&present, &present, &params);
        raw::irq_enable();
        SMP.bring_up();
        let ok = work().unwrap_or_else(|error| {
            println!("a call was refused: {error}");
            false
        });
        println!("smpcall: end {}", if ok { "ok" } else { "failed" });
        raw::exit(u8::from(!ok))
    }

    /// Any other CPU: nobody asks it to leave, so it only waits.
    fn secondary(_cpu: u32) -> ! {
        if SMP.online_this_cpu() {
            loop {
                raw::wait_for_interrupt();
            }
        }
        raw::stop_self()
    }

    fn ipi() {
        SMP.handle_ipi();
    }

    fn timer(_pc: u64) {}

    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        println!("panic on CPU {}: {info}", raw::current_cpu());
        // A machine that nobody watches would `raw::reset()`.
        raw::exit(1)
    }
}
