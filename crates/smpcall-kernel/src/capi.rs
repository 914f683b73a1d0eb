//! The kernel image whose kernel is in C: `kernel_main.c` of `smpcall-capi` and its conformance cases.
//!
//! This file is what a C kernel has of its own: entry points and drivers, which here are those of
//! `smpcall-metal` under C names. The C side makes its table of them, and everything from
//! `smpcall_init` on is C's. `cargo xtask qemu --suite capi` compiles the C files and links them
//! with this; the panic handler is the C library's.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

#[cfg(target_os = "none")]
mod image {
    use core::ffi::{CStr, c_char, c_int};

    // Its symbols are called from C.
    use smpcall_capi as _;
    use smpcall_metal::{Boot, MAX_CPUS, println, raw};

    smpcall_metal::kernel!(main: main, secondary: secondary, ipi: ipi, timer: timer);

    unsafe extern "C" {
        /// # Safety
        /// 1. The text ends with a NUL. 2. Called once, on the boot CPU, interrupts off.
        fn c_kernel_main(cmdline: *const c_char, cpus: c_int) -> c_int;
        /// A started CPU, interrupts off; returns when it has left.
        safe fn c_kernel_secondary();
        safe fn generic_smp_call_function_single_interrupt();
    }

    /// The command line with a NUL behind it; what does not fit is cut.
    fn c_text(text: &str, room: &mut [u8; 512]) {
        let fits = text.len().min(room.len() - 1);
        room[..fits].copy_from_slice(&text.as_bytes()[..fits]);
    }

    fn main(boot: &'static Boot) -> ! {
        let mut cmdline = [0; 512];
        c_text(boot.cmdline, &mut cmdline);
        let cpus = boot.hw_ids.len().min(MAX_CPUS) as c_int;
        // SAFETY: 1 — the last byte is 0; 2 — `kernel!` promises it.
        let code = unsafe { c_kernel_main(cmdline.as_ptr().cast(), cpus) };
        raw::exit(code as u8)
    }

    fn secondary(_cpu: u32) -> ! {
        c_kernel_secondary();
        raw::stop_self()
    }

    fn ipi() {
        generic_smp_call_function_single_interrupt();
    }

    fn timer(_pc: u64) {}

    /// The drivers that C's table is made of.
    mod drivers {
        use super::{CStr, c_char, c_int, println, raw};

        #[unsafe(no_mangle)]
        extern "C" fn metal_current_cpu() -> c_int {
            raw::current_cpu() as c_int
        }

        #[unsafe(no_mangle)]
        extern "C" fn metal_irqs_save() -> bool {
            raw::irq_save()
        }

        #[unsafe(no_mangle)]
        extern "C" fn metal_irqs_restore(were_on: bool) {
            raw::irq_restore(were_on);
        }

        #[unsafe(no_mangle)]
        extern "C" fn metal_irqs_enabled() -> bool {
            raw::irq_enabled()
        }

        #[unsafe(no_mangle)]
        extern "C" fn metal_wait_for_interrupt() {
            raw::wait_for_interrupt();
        }

        #[unsafe(no_mangle)]
        extern "C" fn metal_send_ipi(cpu: c_int) {
            raw::send_ipi(cpu as u32);
        }

        /// # Safety
        /// 1. There are so many words.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn metal_send_ipi_words(words: *const u64, count: usize) {
            // SAFETY: 1.
            raw::send_ipi_mask(unsafe { core::slice::from_raw_parts(words, count) });
        }

        #[unsafe(no_mangle)]
        extern "C" fn metal_max_cpus() -> c_int {
            super::MAX_CPUS as c_int
        }

        #[unsafe(no_mangle)]
        extern "C" fn metal_relax() {
            raw::relax();
        }

        #[unsafe(no_mangle)]
        extern "C" fn metal_now_ns() -> u64 {
            raw::now_ns()
        }

        #[unsafe(no_mangle)]
        extern "C" fn metal_start_cpu(cpu: c_int) -> c_int {
            const EIO: c_int = 5;
            raw::start(cpu as u32).map_or(-EIO, |()| 0)
        }

        #[unsafe(no_mangle)]
        extern "C" fn metal_is_stopped(cpu: c_int) -> bool {
            raw::is_stopped(cpu as u32)
        }

        /// # Safety
        /// 1. The text ends with a NUL.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn metal_say(text: *const c_char) {
            // SAFETY: 1.
            let text = unsafe { CStr::from_ptr(text) };
            println!("{}", text.to_str().unwrap_or("(not UTF-8)"));
        }

        #[unsafe(no_mangle)]
        extern "C" fn metal_exit(code: c_int) {
            raw::exit(code as u8)
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!(
        "this image is built for bare metal: cargo xtask qemu --arch x86_64 --smp 4 --suite capi"
    );
    std::process::exit(2);
}
