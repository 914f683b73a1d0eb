//! `docs/smp-c-map.md` is complete and names nothing that is not there.
//!
//! `smp_c_identifiers.txt` lists every identifier of the original file, in its order. Each must stand
//! in the first column of a row; each item and each test that a row names must be defined in the
//! sources, where *defined* is what a look at the beginning of a line tells.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const IDENTIFIERS: &str = include_str!("smp_c_identifiers.txt");

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The cells of each row.
fn rows() -> Vec<Vec<String>> {
    let map = fs::read_to_string(workspace().join("docs/smp-c-map.md")).expect("the map");
    map.lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'))
        .map(|line| {
            line.split(" |")
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The Rust files below a folder, one after the other.
fn read_all(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_all(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push_str(&fs::read_to_string(&path).expect("a source file"));
        }
    }
}

/// The name that a line defines: of an item, a field or a variant.
fn defined(line: &str) -> Option<&str> {
    const BEFORE: &[&str] = &[
        "pub",
        "pub(crate)",
        "pub(super)",
        "unsafe",
        "const",
        "static",
        "extern",
        "\"C\"",
    ];
    const ITEMS: &[&str] = &["fn", "struct", "enum", "trait", "type", "mod"];
    let mut words = line.split_whitespace();
    let word = words.find(|word| !BEFORE.contains(word))?;
    let (name, is_item) = match ITEMS.contains(&word) {
        true => (words.next()?, true),
        false => (word, false),
    };
    let end = name
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(name.len());
    let (name, rest) = name.split_at(end);
    // A field's colon, a variant's comma, body or values.
    let is_part = rest.starts_with([':', ',', '(']) || words.next() == Some("{");
    (is_item || is_part)
        .then_some(name)
        .filter(|name| !name.is_empty())
}

/// Every name that the sources define.
fn defined_names() -> BTreeSet<String> {
    let mut sources = String::new();
    for folder in [
        "smpcall/src",
        "smpcall/tests",
        "smpcall-hosted/src",
        "smpcall-hosted/tests",
        "smpcall-torture/src",
        "smpcall-capi/src",
    ] {
        read_all(&workspace().join("crates").join(folder), &mut sources);
    }
    sources
        .lines()
        .filter_map(defined)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_identifier_of_the_original_has_a_row() {
    let rows = rows();
    let first: BTreeSet<&str> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    let missing: Vec<&str> = IDENTIFIERS
        .lines()
        .filter(|name| !first.contains(name))
        .collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
    assert!(IDENTIFIERS.lines().count() > 150, "the list is whole");
}

#[test]
fn every_item_and_test_that_the_map_names_exists() {
    let names = defined_names();
    // What the language and the tables themselves bring.
    let given = [
        "Copy",
        "Send",
        "Sync",
        "FnMut",
        "None",
        "Result",
        "doc(alias)",
        "pub",
        "#[cold]",
        "W",
        "ui/",
    ];
    let there: BTreeSet<&str> = IDENTIFIERS.lines().collect();
    let exists = |token: &str| {
        let last = token.rsplit("::").next().unwrap_or(token);
        let is_file = token.contains('/') && workspace().join(token).exists();
        is_file || given.contains(&token) || there.contains(token) || names.contains(last)
    };
    let rows = rows();
    let cells = rows.iter().flat_map(|row| row.iter().skip(1));
    let unknown: Vec<&str> = cells
        .flat_map(|cell| quoted(cell))
        .filter(|token| !exists(token.trim_end_matches('=')) && !token.contains('='))
        .collect();
    assert!(unknown.is_empty(), "nowhere: {unknown:?}");
}

#[test]
fn what_the_original_offered_is_found_by_its_own_name() {
    let mut sources = String::new();
    for folder in ["smpcall/src", "smpcall-hosted/src"] {
        read_all(&workspace().join("crates").join(folder), &mut sources);
    }
    let offered = "smp_call_function_single __smp_call_function_single smp_call_function_any \
        smp_call_function_many smp_call_function on_each_cpu on_each_cpu_mask on_each_cpu_cond \
        kick_all_cpus_sync generic_smp_call_function_single_interrupt call_single_data csd_lock \
        csd_unlock call_function_init hotplug_cfd nosmp nrcpus maxcpus setup_max_cpus nr_cpu_ids \
        setup_nr_cpu_ids smp_init arch_send_call_function_single_ipi \
        arch_send_call_function_ipi_mask";
    let is_found = |name: &&str| {
        let (alias, own) = (format!("alias = \"{name}\""), format!("pub fn {name}"));
        sources.contains(&alias) || sources.contains(&own)
    };
    let lost: Vec<&str> = offered
        .split_whitespace()
        .filter(|name| !is_found(name))
        .collect();
    assert!(
        lost.is_empty(),
        "neither an item nor a `doc(alias)`: {lost:?}"
    );
}

#[test]
fn every_defect_has_a_fix_and_a_test() {
    let rows = rows();
    let defects: Vec<&Vec<String>> = rows
        .iter()
        .filter(|row| row[0].parse::<u32>().is_ok())
        .collect();
    assert_eq!(defects.len(), 16);
    for (row, number) in defects.iter().zip(1..) {
        assert_eq!(row[0], number.to_string(), "in order");
        assert!(
            quoted(&row[3]).next().is_some(),
            "defect {number} names no test"
        );
    }
}

#[test]
fn the_check_knows_a_definition_from_a_use() {
    assert_eq!(
        defined("    pub(crate) fn ring(&self) -> Ring {"),
        Some("ring")
    );
    assert_eq!(defined("pub struct Csd<F = fn()> {"), Some("Csd"));
    assert_eq!(
        defined("    pub prepare: fn(CpuId) -> Result<(), i32>,"),
        Some("prepare")
    );
    assert_eq!(defined("    InterruptsOff,"), Some("InterruptsOff"));
    assert_eq!(defined("    BroughtUp {"), Some("BroughtUp"));
    assert_eq!(
        defined("    pub const CAPACITY: usize = 64 * W;"),
        Some("CAPACITY")
    );
    assert_eq!(
        defined("    const fn first_n(n: usize) -> Self {"),
        Some("first_n")
    );
    assert_eq!(defined("        area.bell.ring();"), None);
    assert_eq!(defined("// fn ring"), None);
}
