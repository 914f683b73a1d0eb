//! How much memory the core takes: counted, for a kernel puts the instance into its image.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
#![cfg(not(loom))]

use core::convert::Infallible;
use core::fmt;

use smpcall::{CpuId, CpuMask, Csd, IrqsOff, Platform, Report, Smp, StartError};

/// A platform that is never run: one CPU, and nothing to do.
#[derive(Debug)]
struct Nowhere;

// SAFETY: 1 to 4 — no instance of it is ever set up, so nothing is promised to anybody.
unsafe impl Platform for Nowhere {
    type Panic = Infallible;
    const WAITERS_SERVE: bool = false;

    fn current_cpu(&self) -> Option<CpuId> {
        None
    }
    fn irqs_save(&self) -> bool {
        false
    }
    fn irqs_restore(&self, _were_on: bool) {}
    fn irqs_enabled(&self) -> bool {
        false
    }
    fn send_ipi(&self, _cpu: CpuId) {}
    fn relax(&self, _spins: u32) {}
    fn now_ns(&self) -> u64 {
        0
    }
    fn start_cpu(&self, _cpu: CpuId) -> Result<(), StartError> {
        Err(StartError::NoSuchCpu)
    }
    fn catch<R>(&self, f: impl FnOnce() -> R) -> Result<R, Infallible> {
        Ok(f())
    }
    fn resume(&self, panic: Infallible) -> ! {
        match panic {}
    }
    fn report(&self, _report: Report<'_>) {}
    fn report_panic(&self, _cpu: CpuId, panic: Infallible) {
        match panic {}
    }
    fn fatal(&self, message: fmt::Arguments<'_>) -> ! {
        panic!("{message}")
    }
}

const MIB: usize = 1 << 20;

/// The instance for `64 * W` CPUs with room for eight posts each.
const fn instance<const W: usize>() -> usize {
    size_of::<Smp<Nowhere, W, 8>>()
}

#[test]
fn an_instance_for_1024_cpus_takes_about_a_mebibyte() {
    let bytes = instance::<16>();
    println!("1,024 CPUs: {bytes} bytes, {} for each", bytes / 1024);
    assert!(bytes <= MIB + MIB / 4, "{bytes} bytes");
}

#[test]
fn what_a_cpu_takes_grows_by_its_bitmaps_alone() {
    // One instance of each width is two bitmaps' words wider for every CPU, rounded to lines, and
    // nothing more: storage for pairs of CPUs would multiply what a CPU takes.
    let (small, large) = (instance::<16>() / 1024, instance::<64>() / 4096);
    println!("for each CPU: {small} bytes of 1,024, {large} bytes of 4,096");
    println!("4,096 CPUs: {} bytes", instance::<64>());
    let bitmaps = 2 * (64 - 16) * size_of::<u64>();
    assert!(large - small <= bitmaps + 64, "{small} and {large} bytes");
    assert!(instance::<64>() <= 8 * MIB);
}

#[test]
fn an_instance_takes_no_more_than_its_cpus_do() {
    let (one, four) = (instance::<1>(), instance::<4>());
    println!("64 CPUs: {one} bytes, 256 CPUs: {four} bytes");
    assert!(
        one <= 64 * 1024 && four <= 272 * 1024,
        "{one} and {four} bytes"
    );
}

#[test]
fn a_descriptor_fits_into_a_cache_line() {
    // Two words of queue, one of state, one for its drop or its waiter, and the function.
    println!("Csd: {} bytes", size_of::<Csd>());
    assert_eq!(size_of::<Csd>(), 5 * size_of::<usize>());
    let empty = || ();
    assert_eq!(size_of_val(&Csd::new(empty)), 4 * size_of::<usize>());
}

#[test]
fn a_mask_is_its_words_and_an_id_is_one() {
    assert_eq!(size_of::<CpuMask<16>>(), 16 * size_of::<u64>());
    assert_eq!(size_of::<CpuId>(), size_of::<u32>());
    // The platform, the CPU's count of guards, and which region of it.
    assert_eq!(
        size_of::<Option<IrqsOff<'_, Nowhere>>>(),
        3 * size_of::<usize>()
    );
}

/// The answer of a type that is not what was asked: an inherent constant hides it.
trait No {
    const ANSWER: bool = false;
}

/// Asks the compiler whether a type has a property.
macro_rules! ask {
    ($($question:ident: $bound:ident,)*) => {$(
        struct $question<T: ?Sized>(core::marker::PhantomData<T>);
        impl<T: ?Sized> No for $question<T> {}
        impl<T: ?Sized + $bound> $question<T> {
            const ANSWER: bool = true;
        }
    )*};
}

ask! {
    MaySend: Send,
    MayShare: Sync,
    MayMove: Unpin,
}

#[test]
fn threads_may_share_what_they_must_and_nothing_else() {
    type Shares = core::cell::Cell<u32>;
    type Points = *const u32;
    const { assert!(MayShare::<Smp<Nowhere>>::ANSWER && MaySend::<Smp<Nowhere>>::ANSWER) };
    const { assert!(MayShare::<Csd>::ANSWER && MaySend::<Csd>::ANSWER) };
    const { assert!(!MayShare::<Csd<Shares>>::ANSWER && !MayShare::<Csd<Points>>::ANSWER) };
    const { assert!(!MaySend::<Csd<Points>>::ANSWER && !MaySend::<IrqsOff<'_, Nowhere>>::ANSWER) };
    const { assert!(MayShare::<CpuMask>::ANSWER && MaySend::<CpuMask>::ANSWER) };
}

#[test]
fn a_descriptor_may_not_move_once_it_is_pinned() {
    const { assert!(!MayMove::<Csd>::ANSWER && MayMove::<CpuMask>::ANSWER) };
}
