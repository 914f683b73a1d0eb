//! `cargo xtask sweep`: does the sweep's timer strike everywhere? The addresses that it struck, beside the
//! path itself.
//!
//! The kernel's suite `sweep` interrupts each send path one instruction later each time, and says at which
//! addresses. What the path is, a second run of the same image tells: no timer is set there, and QEMU
//! writes a line for each instruction, of which those between the kernel's two marks are the path. Each
//! instruction of it that runs with interrupts on must have been interrupted. Which those are is read
//! off the instructions that turn interrupts off and on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};

use crate::arch::Arch;
use crate::image::{self, Image};
use crate::qemu::{self, Options, Suite};
use crate::test::Counts;

/// The kernel's marks: functions that run right before a path and right after it.
const MARKS: [&str; 2] = ["smpcall_sweep_begin", "smpcall_sweep_end"];
/// What begins the kernel's lines of addresses.
const PLACES: &str = "smpcall: places ";

/// A path by its name, and the addresses at which it was interrupted.
type Struck = (String, BTreeSet<u64>);

/// Runs of the sweep at most: a single instruction may be missed by chance, and each run makes other passes.
const RUNS: u32 = 6;

/// Traces, sweeps until nothing is missed, and compares: each run is one check, and each path is another.
pub(crate) fn check(arch: Arch) -> Result<Counts> {
    let kernel = image::build(arch, Image::Kernel)?;
    let code = Code::read(arch, &kernel)?;
    let options = |words: String, extra: Vec<String>| Options {
        suite: Suite::Sweep,
        append: Some(words),
        kernel: Some(kernel.clone()),
        icount: true,
        one_insn_per_tb: true,
        extra,
        ..Options::conformance(arch, 2)
    };
    let log = Log::new();
    let words = ["-d", "exec,nochain", "-D", &log.0.display().to_string()];
    let filter = ["-dfilter".to_owned(), code.ranges()];
    let extra = words.map(str::to_owned).into_iter().chain(filter).collect();
    let traced = qemu::boot(&options("sweep=trace".to_owned(), extra))?;
    let mut counts = Counts::from(traced.faults.is_empty());
    let paths = paths(BufReader::new(File::open(&log.0)?), &code.marks)?;
    // Each path runs twice: the first time to warm up.
    let paths = paths.iter().skip(1).step_by(2);
    let open: Vec<BTreeSet<u64>> = paths.clone().map(|path| code.interruptible(path)).collect();
    let mut all_struck: Vec<Struck> = Vec::new();
    for run in 0..RUNS {
        let swept = qemu::boot(&options(format!("sweep_run={run}"), Vec::new()))?;
        counts.add(swept.faults.is_empty().into());
        merge(&mut all_struck, struck(&swept.lines));
        let covered = |(open, (_, places)): (&BTreeSet<u64>, &Struck)| open.is_subset(places);
        if open.iter().zip(&all_struck).all(covered) {
            break;
        }
    }
    ensure!(
        open.len() == all_struck.len() && !open.is_empty(),
        "{} paths were traced, {} were swept",
        open.len(),
        all_struck.len()
    );
    for ((struck, path), open) in all_struck.iter().zip(paths).zip(&open) {
        counts.add(compare(arch, struck, path, open).into());
    }
    Ok(counts)
}

/// Adds what another run interrupted.
fn merge(all: &mut Vec<Struck>, run: Vec<Struck>) {
    for (name, places) in run {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, set)) => set.extend(places),
            None => all.push((name, places)),
        }
    }
}

/// Prints how much of a path was interrupted; whether that is all of it.
fn compare(arch: Arch, (name, places): &Struck, path: &[u64], open: &BTreeSet<u64>) -> bool {
    let all: BTreeSet<u64> = path.iter().copied().collect();
    let missed: Vec<String> = open
        .difference(places)
        .map(|pc| format!("{pc:x}"))
        .collect();
    println!(
        "sweep {} {name}: covered {} of {} instructions that run with interrupts on; {} more run \
         with interrupts off",
        arch.name(),
        open.len() - missed.len(),
        open.len(),
        all.len() - open.len()
    );
    if !missed.is_empty() {
        eprintln!(
            "xtask: {name} was never interrupted at {}",
            missed.join(" ")
        );
    }
    missed.is_empty() && !open.is_empty()
}

/// The addresses that the kernel says, by path, in its order.
fn struck(lines: &[String]) -> Vec<Struck> {
    let mut found = Vec::new();
    let said = lines.iter().filter_map(|line| line.strip_prefix(PLACES));
    for (name, places) in said.filter_map(|line| line.split_once(':')) {
        let places = places.split_whitespace();
        let places = places.filter_map(|place| u64::from_str_radix(place, 16).ok());
        merge(&mut found, vec![(name.to_owned(), places.collect())]);
    }
    found
}

/// QEMU's log, a file that goes when this does.
struct Log(PathBuf);

impl Log {
    fn new() -> Log {
        let name = format!("smpcall-trace-{}", std::process::id());
        Log(crate::apt::tools_dir().with_file_name(name))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What CPU 0 ran between the marks, each time, from QEMU's log.
fn paths(mut log: impl BufRead, marks: &[Range<u64>; 2]) -> Result<Vec<Vec<u64>>> {
    let mut paths = Vec::new();
    let mut current: Option<Vec<u64>> = None;
    let mut line = Vec::new();
    while log.read_until(b'\n', &mut line)? > 0 {
        let pc = parse(&line);
        line.clear();
        let Some(pc) = pc else { continue };
        if marks[0].contains(&pc) {
            current = Some(Vec::new());
        } else if marks[1].contains(&pc) {
            paths.extend(current.take());
        } else if let Some(path) = &mut current {
            path.push(pc);
        }
    }
    Ok(paths)
}

/// The address in a line about CPU 0, `Trace CPU: HOST [BASE/PC/FLAGS/FLAGS] SYMBOL` in hexadecimal.
fn parse(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"Trace 0: ")?;
    let pc = rest.split(|&byte| byte == b'/').nth(1)?;
    u64::from_str_radix(str::from_utf8(pc).ok()?, 16).ok()
}

/// What an instruction does to interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Nothing.
    None,
    /// Off from here.
    Off,
    /// On from here.
    On,
    /// On after the next instruction, unless they were on already.
    OnAfterNext,
    /// As they were before they were last turned off.
    Back,
}

/// The image's instructions.
struct Code {
    arch: Arch,
    /// Bytes of each section of code, by the address of the first.
    sections: BTreeMap<u64, Vec<u8>>,
    /// Where the marks are.
    marks: [Range<u64>; 2],
}

impl Code {
    fn read(arch: Arch, image: &Path) -> Result<Code> {
        let bytes = std::fs::read(image)?;
        let file = object::File::parse(&*bytes)?;
        let mut sections = BTreeMap::new();
        for section in file.sections() {
            if section.kind() == SectionKind::Text {
                sections.insert(section.address(), section.data()?.to_vec());
            }
        }
        let mark = |name: &str| {
            let symbol = file.symbol_by_name(name);
            let symbol = symbol.with_context(|| format!("no function {name} in the image"))?;
            Ok::<_, anyhow::Error>(symbol.address()..symbol.address() + symbol.size())
        };
        Ok(Code {
            arch,
            sections,
            marks: [mark(MARKS[0])?, mark(MARKS[1])?],
        })
    }

    /// The addresses of the sections, as QEMU's filter wants them.
    fn ranges(&self) -> String {
        let range = |(start, bytes): (&u64, &Vec<u8>)| format!("{start:#x}+{:#x}", bytes.len());
        let ranges: Vec<String> = self.sections.iter().map(range).collect();
        ranges.join(",")
    }

    /// The bytes from this address on; none outside the image.
    fn at(&self, pc: u64) -> &[u8] {
        let section = self.sections.range(..=pc).next_back();
        let bytes = section.and_then(|(start, bytes)| bytes.get((pc - start) as usize..));
        bytes.unwrap_or_default()
    }

    /// Those of a path's addresses before which an interrupt can come. It begins with them on.
    fn interruptible(&self, path: &[u64]) -> BTreeSet<u64> {
        let (mut on, mut before, mut shadow) = (true, true, false);
        let mut open = BTreeSet::new();
        for &pc in path {
            if on && !shadow {
                open.insert(pc);
            }
            shadow = false;
            match self.effect(pc) {
                Effect::None => {}
                Effect::Off => (before, on) = (on, false),
                Effect::On => on = true,
                Effect::OnAfterNext => (shadow, on) = (!on, true),
                Effect::Back => on |= before,
            }
        }
        open
    }

    /// What the instruction at this address does to interrupts.
    fn effect(&self, pc: u64) -> Effect {
        let bytes = self.at(pc);
        let word = bytes
            .first_chunk()
            .map_or(0, |word| u32::from_le_bytes(*word));
        match self.arch {
            Arch::X86_64 => match bytes.first() {
                Some(0xfa) => Effect::Off,
                Some(0xfb) => Effect::OnAfterNext,
                _ => Effect::None,
            },
            Arch::Aarch64 => aarch64_effect(word),
            Arch::Riscv64 => riscv64_effect(word),
        }
    }
}

/// `msr daifset` and `msr daifclr`, with the bit of interrupts in their mask.
fn aarch64_effect(word: u32) -> Effect {
    match word & !0xf00 {
        _ if word & 0x200 == 0 => Effect::None,
        0xd503_40df => Effect::Off,
        0xd503_40ff => Effect::On,
        _ => Effect::None,
    }
}

/// The instructions on sstatus: `csrrci` and `csrrsi` with the bit SIE, `csrrs` with an old value.
fn riscv64_effect(word: u32) -> Effect {
    let (csr, operand, function, opcode) =
        (word >> 20, word >> 15 & 0x1f, word >> 12 & 7, word & 0x7f);
    if opcode != 0x73 || csr != 0x100 {
        return Effect::None;
    }
    match function {
        7 if operand & 2 != 0 => Effect::Off,
        6 if operand & 2 != 0 => Effect::On,
        2 if operand != 0 => Effect::Back,
        _ => Effect::None,
    }
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{Code, Effect, aarch64_effect, compare, parse, paths, riscv64_effect, struck};
    use crate::arch::Arch;

    /// nop, cli, nop, sti, nop, nop at 0x100, on x86_64.
    fn code() -> Code {
        Code {
            arch: Arch::X86_64,
            sections: BTreeMap::from([(0x100, vec![0x90, 0xfa, 0x90, 0xfb, 0x90, 0x90])]),
            marks: [0x200..0x204, 0x204..0x208],
        }
    }

    #[test]
    fn a_line_of_the_log_gives_the_address_of_cpu_0_only() {
        let line =
            b"Trace 0: 0x7f2c4004 [0000000000000000/0000000000101a2f/0040c0b0/ff010201] main\n";
        assert_eq!(parse(line), Some(0x10_1a2f));
        assert_eq!(parse(b"Trace 1: 0x7f2c4004 [0/1/2/3] main"), None);
        assert_eq!(parse(b"Stopped execution of TB chain"), None);
    }

    #[test]
    fn a_path_is_what_runs_between_the_marks() {
        let pcs = [
            0x10, 0x200, 0x203, 0x100, 0x101, 0x204, 0x10, 0x200, 0x105, 0x204,
        ];
        let log: String = pcs
            .map(|pc| format!("Trace 0: 0 [0/{pc:x}/0/0] f\n"))
            .concat();
        let found = paths(log.as_bytes(), &code().marks).unwrap();
        assert_eq!(found, [vec![0x100, 0x101], vec![0x105]]);
    }

    #[test]
    fn what_runs_between_cli_and_sti_and_just_after_is_not_interruptible() {
        let path: Vec<u64> = (0x100..0x106).collect();
        let open = BTreeSet::from([0x100, 0x101, 0x105]);
        assert_eq!(code().interruptible(&path), open);
    }

    #[test]
    fn a_path_with_an_instruction_that_was_not_interrupted_fails() {
        let path: Vec<u64> = (0x100..0x106).collect();
        let open = code().interruptible(&path);
        let all = ("call".to_owned(), BTreeSet::from([0x100, 0x101, 0x105]));
        assert!(compare(Arch::X86_64, &all, &path, &open));
        let some = ("call".to_owned(), BTreeSet::from([0x100, 0x105]));
        assert!(!compare(Arch::X86_64, &some, &path, &open));
        assert!(!compare(Arch::X86_64, &all, &[], &BTreeSet::new()));
    }

    #[test]
    fn instructions_that_mask_interrupts_are_told_apart() {
        assert_eq!(riscv64_effect(0x1001_7073), Effect::Off);
        assert_eq!(riscv64_effect(0x1001_6073), Effect::On);
        assert_eq!(riscv64_effect(0x1005_2073), Effect::Back);
        assert_eq!(riscv64_effect(0x1000_2573), Effect::None);
        assert_eq!(aarch64_effect(0xd503_42df), Effect::Off);
        assert_eq!(aarch64_effect(0xd503_42ff), Effect::On);
        assert_eq!(aarch64_effect(0xd503_41df), Effect::None);
    }

    #[test]
    fn addresses_are_gathered_by_path() {
        let lines = [
            "smpcall: places call: 10 1f",
            "smpcall: places call: 20",
            "talk",
            "smpcall: places post: 30",
        ];
        let found = struck(&lines.map(str::to_owned));
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].1, BTreeSet::from([0x10, 0x1f, 0x20]));
    }
}
