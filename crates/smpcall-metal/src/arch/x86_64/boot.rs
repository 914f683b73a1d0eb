//! From the entry to the kernel's main function: what the firmware told.
//!
//! The boot CPU's APIC id comes from its APIC, the others from the ACPI MADT, in its order. The boot
//! CPU is logical 0. Parameters on the command line, the last of a name wins:
//!
//! - `apic=x2apic` or `apic=xapic`: the mode of the local APICs; without it x2APIC if there is one.
//! - `absent=N`: adds a CPU with APIC id N, which need not exist, to test a start that fails.

use core::arch::global_asm;
use core::ops::Range;

use raw_cpuid::CpuId;
use x86_64::instructions::port::Port;

use super::ipi::Mode;
use super::madt::{self, Root};
use super::{BootCell, console, exit, ipi, percpu, smp, time, trap};
use crate::cmdline::last_value;
use crate::{Boot, MAX_CPUS};

/// Where secondaries start: below 1 MiB, on a page boundary, in memory that no firmware data needed
/// later is in.
pub(super) const TRAMPOLINE: u32 = 0x8000;
/// Where a BIOS keeps the RSDP if the loader did not find it.
const BIOS_AREA: Range<u64> = 0xe_0000..0x10_0000;
/// The magic of hvm_start_info.
const START_INFO_MAGIC: u32 = 0x336e_c578;
/// What is mapped.
const MAPPED: u64 = 1 << 32;
/// APIC ids from here on need x2APIC: 255 is xAPIC's broadcast.
const XAPIC_IDS: u32 = 0xff;
const CMDLINE_LEN: usize = 4096;

global_asm!(
    include_str!("boot.S"),
    boot_main = sym boot_main,
    secondary_main = sym smp::secondary_main,
    cpu_ids = sym percpu::CPU_IDS,
    apic_ids = sym ipi::APIC_IDS,
    apic_ids_count = sym ipi::COUNT,
    states = sym smp::STATES,
    stacks = sym smp::STACKS,
    gdt = sym trap::GDT,
    gdt_limit = const trap::GDT_LEN * 8 - 1,
    slot = const size_of::<smp::Stack>(),
    requested = const smp::REQUESTED,
    running = const smp::RUNNING,
    trampoline = const TRAMPOLINE,
    options(att_syntax),
);

unsafe extern "C" {
    #[link_name = "trampoline"]
    safe static trampoline_code: u8;
    safe static trampoline_end: u8;
    /// Mapped one to one by 2 MiB pages; `boot.S` fills it in.
    static mut page_directories: [u64; 2048];
}

/// What PVH hands over, as far as it is needed.
#[repr(C)]
#[derive(Clone, Copy)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    cmdline: u64,
    rsdp: u64,
}

/// The boot information and what it points to.
struct Storage {
    boot: Boot,
    cmdline: [u8; CMDLINE_LEN],
    hw_ids: [u64; MAX_CPUS],
}

static STORAGE: BootCell<Storage> = BootCell::new(Storage {
    boot: Boot {
        cmdline: "",
        hw_ids: &[],
    },
    cmdline: [0; CMDLINE_LEN],
    hw_ids: [0; MAX_CPUS],
});

/// One page table.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct PageTable([u64; 512]);

const LARGE_PAGE: usize = 1 << 21;
const SMALL_PAGE: usize = 1 << 12;
const PRESENT_WRITABLE: u64 = 3;
/// Map the stacks by small pages, but for each stack's guard.
const STACK_TABLES: usize = size_of::<smp::Stacks>() / LARGE_PAGE;
const _: () = assert!(
    size_of::<smp::Stacks>().is_multiple_of(LARGE_PAGE),
    "the stacks fill their page tables"
);
static STACK_PAGES: BootCell<[PageTable; STACK_TABLES]> =
    BootCell::new([PageTable([0; 512]); STACK_TABLES]);

/// What the firmware told.
pub(crate) fn info() -> &'static Boot {
    &STORAGE.get().boot
}

/// The boot CPU's first Rust code, called by `boot.S`: interrupts off, on its own stack.
extern "C" fn boot_main(start_info: u64) -> ! {
    console::initialize();
    mask_legacy_controllers();
    let start = start_info as usize as *const StartInfo;
    // SAFETY: 1. PVH passes a readable, aligned structure below 4 GiB.
    let start = unsafe { start.read() };
    if start.magic != START_INFO_MAGIC {
        die(&["not booted through PVH"]);
    }
    // SAFETY: 1. The boot CPU, alone. 2. The only borrow; `info` is not called before it ends.
    let Storage {
        boot,
        cmdline,
        hw_ids,
    } = unsafe { STORAGE.get_mut() };
    boot.cmdline = copy_cmdline(start.cmdline, cmdline);

    let mode = wanted_mode(boot.cmdline);
    ipi::select(mode);
    trap::build_tables();
    trap::load_this_cpu();
    let count = find_cpus(hw_ids, start.rsdp, mode, boot.cmdline);
    boot.hw_ids = &hw_ids[..count];
    ipi::record(boot.hw_ids);

    unmap_stack_guards();
    copy_trampoline();
    smp::boot_cpu_arrives();
    time::calibrate();
    crate::__smpcall_main(info())
}

/// Masks both 8259s: the firmware leaves the interval timer's interrupt on, at an exception's vector.
fn mask_legacy_controllers() {
    for data_port in [0x21, 0xa1] {
        // SAFETY: 1. The mask registers of every PC; a machine without them ignores the write.
        unsafe { Port::<u8>::new(data_port).write(0xff) };
    }
}

/// Copies the command line out of the loader's memory; cuts it where it is too long or not UTF-8.
fn copy_cmdline(from: u64, to: &'static mut [u8; CMDLINE_LEN]) -> &'static str {
    let mut len = 0;
    while let Some(&[byte]) = physical(from + len as u64, 1) {
        if byte == 0 || len == to.len() {
            break;
        }
        to[len] = byte;
        len += 1;
    }
    match core::str::from_utf8(&to[..len]) {
        Ok(text) => text,
        Err(error) => core::str::from_utf8(&to[..error.valid_up_to()]).unwrap_or(""),
    }
}

/// The mode to bring all APICs into.
fn wanted_mode(cmdline: &str) -> Mode {
    let features = CpuId::new().get_feature_info();
    let has_x2apic = features.is_some_and(|features| features.has_x2apic());
    match last_value(cmdline, "apic") {
        None if has_x2apic => Mode::X2apic,
        None | Some("xapic") => Mode::Xapic,
        Some("x2apic") if has_x2apic => Mode::X2apic,
        Some("x2apic") => refuse("apic", "x2apic", "this CPU has no x2APIC"),
        Some(value) => refuse("apic", value, "neither x2apic nor xapic"),
    }
}

/// Fills in the APIC ids by logical id; how many there are.
fn find_cpus(ids: &mut [u64; MAX_CPUS], rsdp: u64, mode: Mode, cmdline: &str) -> usize {
    ids[0] = u64::from(own_apic_id());
    let mut count = 1;
    let mut add = |id: u32| {
        let id_is_usable = mode == Mode::X2apic || id < XAPIC_IDS;
        if id_is_usable && count < MAX_CPUS && !ids[..count].contains(&u64::from(id)) {
            ids[count] = u64::from(id);
            count += 1;
        }
    };
    find_madt(rsdp)
        .into_iter()
        .flat_map(madt::processors)
        .for_each(&mut add);
    if let Some(value) = last_value(cmdline, "absent") {
        match value.parse() {
            Ok(id) => add(id),
            Err(_) => refuse("absent", value, "not an APIC id"),
        }
    }
    count
}

/// This CPU's APIC id, found as `boot.S` finds a secondary's.
fn own_apic_id() -> u32 {
    let cpuid = CpuId::new();
    let topology = cpuid
        .get_extended_topology_info()
        .and_then(|mut levels| levels.next());
    match topology {
        Some(level) if level.processors() != 0 => level.x2apic_id(),
        _ => cpuid
            .get_feature_info()
            .map_or(0, |f| u32::from(f.initial_local_apic_id())),
    }
}

/// The MADT, from the loader's RSDP or, without one, from the BIOS area.
fn find_madt(rsdp: u64) -> Option<&'static [u8]> {
    let at = |address| madt::root(physical(address, madt::RSDP_LEN)?);
    let root = at(rsdp).or_else(|| BIOS_AREA.step_by(16).find_map(at))?;
    let (address, signature, width) = match root {
        Root::Rsdt(address) => (address, b"RSDT", 4),
        Root::Xsdt(address) => (address, b"XSDT", 8),
    };
    let root = table(address).filter(|table| madt::is_table(table, signature))?;
    madt::addresses(root, width)
        .filter_map(table)
        .find(|table| madt::is_table(table, b"APIC"))
}

/// The table at this address, as long as its header says.
fn table(address: u64) -> Option<&'static [u8]> {
    let header = physical(address, madt::HEADER_LEN)?;
    physical(address, madt::length(header)?)
}

/// Physical memory that the firmware filled in and nobody writes.
fn physical(address: u64, len: usize) -> Option<&'static [u8]> {
    let end = address.checked_add(len as u64)?;
    if address == 0 || end > MAPPED {
        return None;
    }
    // SAFETY: 1. Memory below 4 GiB is mapped one to one; where there is none, reads give ones.
    //         2. The callers ask for the loader's and the firmware's tables, which stay as they are.
    Some(unsafe { core::slice::from_raw_parts(address as usize as *const u8, len) })
}

/// Ends the machine over a bad parameter.
fn refuse(name: &str, value: &str, reason: &str) -> ! {
    die(&["bad parameter ", name, "=", value, ": ", reason])
}

/// Ends the machine with a line that says why.
fn die(words: &[&str]) -> ! {
    console::write(b"smpcall: ");
    for word in words {
        console::write(word.as_bytes());
    }
    console::write(b"\n");
    exit::exit(1)
}

/// Maps the stacks by small pages, and the page below each of them not at all.
fn unmap_stack_guards() {
    let first = smp::STACKS.address();
    // SAFETY: 1. The boot CPU, alone. 2. The only borrow, as no table points here yet.
    let tables = unsafe { STACK_PAGES.get_mut() };
    for (page, entry) in tables.iter_mut().flat_map(|table| &mut table.0).enumerate() {
        let offset = page * SMALL_PAGE;
        let is_guard = offset.is_multiple_of(size_of::<smp::Stack>());
        *entry = if is_guard {
            0
        } else {
            (first + offset) as u64 | PRESENT_WRITABLE
        };
    }
    for (i, table) in tables.iter().enumerate() {
        let entry = (&raw mut page_directories)
            .cast::<u64>()
            .wrapping_add(first / LARGE_PAGE + i);
        // SAFETY: 1. Entries of the page directories, used by this CPU alone. 2. The new mapping
        //            differs from the old in the guards only, and nobody has used those.
        unsafe { entry.write_volatile(&raw const *table as u64 | PRESENT_WRITABLE) };
    }
    x86_64::instructions::tlb::flush_all();
}

/// Puts the secondaries' first instructions where a start-up IPI can point.
fn copy_trampoline() {
    let code = &raw const trampoline_code;
    let len = &raw const trampoline_end as usize - code as usize;
    // SAFETY: 1. The target is conventional memory that nothing uses.
    unsafe { core::ptr::copy_nonoverlapping(code, TRAMPOLINE as usize as *mut u8, len) };
}
