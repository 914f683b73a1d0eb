//! What every CPU was doing: the registers of a stopped machine, in words.
//!
//! QEMU prints registers for people, each architecture in its own way; the program counter, the
//! return address where there is a register for it, and a halted flag are picked out of that.
//! CPUs that stand at the same place share a line. The whole text goes to a file.

use std::collections::BTreeMap;
use std::path::Path;

use addr2line::Loader;
use object::{Object, ObjectSymbol, SymbolKind};

use crate::arch::Arch;

/// Where one CPU was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    pc: u64,
    return_address: Option<u64>,
    halted: bool,
}

/// What the image knows of its addresses.
struct Symbols {
    lines: Loader,
    /// Functions by address. Not the loader's symbols: on riscv64, labels inside of functions are
    /// symbols as well, and nearer.
    functions: BTreeMap<u64, String>,
}

impl Symbols {
    /// `None` if the file is no ELF file.
    fn read(kernel: &Path) -> Option<Symbols> {
        let bytes = std::fs::read(kernel).ok()?;
        let file = object::File::parse(&*bytes).ok()?;
        let symbols = file.symbols();
        let functions = symbols.filter(|symbol| symbol.kind() == SymbolKind::Text);
        let functions = functions.filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.starts_with(".L"))?;
            Some((symbol.address(), name.to_owned()))
        });
        Some(Symbols {
            functions: functions.collect(),
            lines: Loader::new(kernel).ok()?,
        })
    }
}

/// Describes `info registers -a`, one line for each place that CPUs are at.
pub(crate) fn describe(arch: Arch, registers: &str, kernel: &Path) -> Vec<String> {
    let symbols = Symbols::read(kernel);
    let mut places: BTreeMap<Place, Vec<u32>> = BTreeMap::new();
    for (cpu, place) in parse(arch, registers) {
        places.entry(place).or_default().push(cpu);
    }
    let mut lines: Vec<(u32, String)> = Vec::new();
    for (place, cpus) in places {
        let mut line = format!(
            "CPU {}: {}",
            cpu_list(&cpus),
            name(symbols.as_ref(), place.pc)
        );
        if let Some(address) = place.return_address {
            line.push_str(&format!(
                "; return address {}",
                name(symbols.as_ref(), address)
            ));
        }
        if place.halted {
            line.push_str("; halted");
        }
        lines.push((cpus[0], line));
    }
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

/// Splits the text at `CPU#n` and reads each part.
fn parse(arch: Arch, registers: &str) -> Vec<(u32, Place)> {
    let mut found = Vec::new();
    for part in registers.split("CPU#").skip(1) {
        let digits = part.split(|letter: char| !letter.is_ascii_digit()).next();
        let cpu = digits.and_then(|digits| digits.parse().ok());
        // Before long mode the counter of x86_64 is `EIP`, which ends like `RIP`.
        let (counter, link) = match arch {
            Arch::X86_64 => ("IP=", None),
            Arch::Aarch64 => ("PC=", Some("X30=")),
            Arch::Riscv64 => (" pc ", Some("x1/ra ")),
        };
        let Some((cpu, pc)) = cpu.zip(hexadecimal_after(part, counter)) else {
            continue;
        };
        let return_address = link.and_then(|name| hexadecimal_after(part, name));
        found.push((
            cpu,
            Place {
                pc,
                return_address,
                halted: part.contains("HLT=1"),
            },
        ));
    }
    found
}

/// The number that follows a register's name.
fn hexadecimal_after(text: &str, name: &str) -> Option<u64> {
    let rest = text.split_once(name)?.1.trim_start();
    let end = rest
        .find(|letter: char| !letter.is_ascii_hexdigit())
        .unwrap_or(rest.len());
    u64::from_str_radix(&rest[..end], 16).ok()
}

/// The address, and the function and source line there if the image knows them.
fn name(symbols: Option<&Symbols>, address: u64) -> String {
    let mut text = format!("{address:#x}");
    let Some(symbols) = symbols else { return text };
    if let Some((_, function)) = symbols.functions.range(..=address).next_back() {
        let function = addr2line::demangle_auto(function.into(), None);
        text.push_str(&format!(" in {function}"));
    }
    if let Ok(Some(location)) = symbols.lines.find_location(address) {
        let file = location.file.unwrap_or("?");
        text.push_str(&format!(" at {file}:{}", location.line.unwrap_or(0)));
    }
    text
}

/// `0-3,8`, from ascending numbers.
fn cpu_list(cpus: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let words = ranges.into_iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    words.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::{cpu_list, parse};
    use crate::arch::Arch;

    #[test]
    fn program_counters_are_found_in_the_text_of_each_architecture() {
        let x86 = "\nCPU#0\nRAX=00 RBX=1\nRIP=00000000001000f0 RFL=2 [---] CPL=0 II=0 HLT=1\n\
                   CPU#12\nRIP=ff RFL=2 HLT=0\n";
        let places = parse(Arch::X86_64, x86);
        assert_eq!(
            (places[0].0, places[0].1.pc, places[0].1.halted),
            (0, 0x1000f0, true)
        );
        assert_eq!(
            (places[1].0, places[1].1.pc, places[1].1.halted),
            (12, 0xff, false)
        );
        let arm = "CPU#3\n PC=0000000040080010 X00=0000000000000000\nX30=0000000040080abc  SP=0\n";
        let places = parse(Arch::Aarch64, arm);
        assert_eq!(
            (places[0].1.pc, places[0].1.return_address),
            (0x4008_0010, Some(0x4008_0abc))
        );
        let riscv =
            "CPU#1\n V      =   0\n pc       0000000080200004\n x0/zero  0 x1/ra    80200abc\n";
        let places = parse(Arch::Riscv64, riscv);
        assert_eq!(
            (places[0].1.pc, places[0].1.return_address),
            (0x8020_0004, Some(0x8020_0abc))
        );
    }

    #[test]
    fn cpu_lists_join_neighbours() {
        assert_eq!(cpu_list(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }
}
