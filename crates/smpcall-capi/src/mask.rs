//! Masks that C looks at: the live ones, the constant ones, and their text.
//!
//! The live masks are copies of the core's, kept by callbacks that run on the CPU that comes or goes:
//! a CPU is in the mask a moment before it takes calls, and out of it a moment before it refuses
//! them. The copies are static, so that C may keep a pointer to one for ever.

use core::ffi::{CStr, c_char, c_int, c_uint};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};

use smpcall::CpuId;

use crate::misuse::{Misuse, Outcome, errno};
use crate::types::{Mask, NR_CPUS, RawMask, WORDS};

pub(crate) static POSSIBLE: RawMask = RawMask::new();
pub(crate) static PRESENT: RawMask = RawMask::new();
static ONLINE: RawMask = RawMask::new();
static ALL: RawMask = RawMask::full();
static NONE: RawMask = RawMask::new();

/// See `smpcall/cpumask.h`.
#[unsafe(no_mangle)]
pub(crate) static cpu_possible_mask: &RawMask = &POSSIBLE;
/// See `smpcall/cpumask.h`.
#[unsafe(no_mangle)]
pub(crate) static cpu_present_mask: &RawMask = &PRESENT;
/// See `smpcall/cpumask.h`.
#[unsafe(no_mangle)]
pub(crate) static cpu_online_mask: &RawMask = &ONLINE;
/// See `smpcall/cpumask.h`.
#[unsafe(no_mangle)]
pub(crate) static cpu_all_mask: &RawMask = &ALL;
/// See `smpcall/cpumask.h`.
#[unsafe(no_mangle)]
pub(crate) static cpu_none_mask: &RawMask = &NONE;

/// The word and the bit of a CPU.
fn place(cpu: CpuId) -> (usize, u64) {
    (cpu.index() / 64, 1 << (cpu.index() % 64))
}

/// A CPU is about to take calls.
pub(crate) fn comes_online(cpu: CpuId) {
    let (word, bit) = place(cpu);
    // ORDERING: Release — as the core's own mask (E16), which follows.
    ONLINE.0[word].fetch_or(bit, Ordering::Release);
}

/// A CPU is about to refuse calls.
pub(crate) fn goes_offline(cpu: CpuId) {
    let (word, bit) = place(cpu);
    // ORDERING: Relaxed — nothing new is published, as with the core's own mask.
    ONLINE.0[word].fetch_and(!bit, Ordering::Relaxed);
}

/// One row for each bit of a word, and one before them: whoever reads a mask from the middle of the
/// row before sees the bit in the word that he asked for.
static ROWS: [[AtomicU64; WORDS]; 65] = {
    let mut rows = [const { [const { AtomicU64::new(0) }; WORDS] }; 65];
    let mut bit = 0;
    while bit < 64 {
        rows[bit + 1][0] = AtomicU64::new(1 << bit);
        bit += 1;
    }
    rows
};

/// See `smpcall/cpumask.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn cpumask_of(cpu: c_uint) -> *const RawMask {
    if cpu >= NR_CPUS {
        return &raw const NONE;
    }
    let cpu = cpu as usize;
    let words = ROWS.as_flattened();
    let first = (cpu % 64 + 1) * WORDS - cpu / 64;
    words[first..first + WORDS].as_ptr().cast()
}

/// Text that is cut where its room ends.
struct Cut<'a> {
    room: &'a mut [u8],
    used: usize,
}

impl Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = &mut self.room[self.used..];
        let fits = text.len().min(free.len());
        free[..fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.used += fits;
        Ok(())
    }
}

/// See `smpcall/cpumask.h`.
///
/// # Safety
/// 1. There are `len` bytes to write to. 2. The mask is null or valid.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cpulist_scnprintf(
    buf: *mut c_char,
    len: c_int,
    srcp: *const RawMask,
) -> c_int {
    let len = usize::try_from(len).unwrap_or(0);
    if buf.is_null() || len == 0 {
        return 0;
    }
    // SAFETY: 2. A null mask has no CPU.
    let mask = unsafe { srcp.as_ref() }.map_or(Mask::EMPTY, RawMask::load);
    // SAFETY: 1.
    let room = unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), len) };
    let mut cut = Cut {
        room: &mut room[..len - 1],
        used: 0,
    };
    // A `Cut` takes everything.
    let _ = write!(cut, "{mask}");
    let used = cut.used;
    room[used] = 0;
    used as c_int
}

/// See `smpcall/cpumask.h`.
///
/// # Safety
/// 1. The text is null, or ends with a NUL. 2. The mask is null, or may be written.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cpulist_parse(buf: *const c_char, dstp: *mut RawMask) -> c_int {
    // SAFETY: 1.
    let mask = unsafe { text(buf) }.and_then(|text| {
        Mask::parse_list(text).map_err(|_| Misuse::Bad("not a list of CPUs below NR_CPUS"))
    });
    // SAFETY: 2.
    let dstp = unsafe { dstp.as_ref() }.ok_or(Misuse::Null("the mask"));
    errno(dstp.and_then(|dstp| mask.map(|mask| dstp.store(&mask))))
}

/// C's text.
///
/// # Safety
/// 1. It is null, or ends with a NUL and does not change for `'a`.
pub(crate) unsafe fn text<'a>(text: *const c_char) -> Outcome<&'a str> {
    if text.is_null() {
        return Err(Misuse::Null("the text"));
    }
    // SAFETY: 1.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Misuse::Bad("not UTF-8"))
}
