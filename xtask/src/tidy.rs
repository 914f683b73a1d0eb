//! `cargo xtask tidy`: the rules of the house that neither rustc nor clippy checks.
//!
//! Each rule looks at text only, and answers with the places that break it. Items that exist for
//! tests are left out where a rule says so: an attribute `#[cfg(...test...)]` that does not negate
//! `test` begins one, and its closing brace or semicolon ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::mutants;
use crate::protocol::{self, Edge};
use crate::test::Counts;

/// The longest source file, tests not counted.
const MAX_LINES: usize = 400;

/// Files that are longer, and how long they may be: to be split, and never to grow.
const OVERLONG: &[(&str, usize)] = &[
    ("crates/smpcall/src/call.rs", 480),
    ("crates/smpcall/src/cpu.rs", 490),
    ("crates/smpcall/src/ticket.rs", 640),
    ("crates/smpcall-metal/examples/bringup_x86_64.rs", 410),
];

/// How long a file may be.
fn max_lines(file: &str) -> usize {
    let overlong = OVERLONG.iter().find(|(name, _)| *name == file);
    overlong.map_or(MAX_LINES, |(_, lines)| *lines)
}

/// A rule: its name, and what finds the places that break it.
type Rule = (&'static str, fn(&Path) -> Result<Vec<String>>);

/// All rules.
const RULES: &[Rule] = &[
    ("files have at most 400 lines without tests", long_files),
    ("the arch folders have the same files", unlike_folders),
    (
        "every edge of docs/protocol.md has a loom test and every such test an edge",
        loose_edges,
    ),
    (
        "every mutant in the code is listed, and killed in the table of docs/testing.md",
        loose_mutants,
    ),
    (
        "the core names no architecture and no std",
        seams_in_the_core,
    ),
    (
        "what a package's code includes is in the package",
        reaches_outside,
    ),
];

/// Checks all rules, printing what breaks them.
pub(crate) fn check() -> Counts {
    let mut counts = Counts::default();
    for (name, find) in RULES {
        // A rule that cannot be checked is broken.
        let places =
            find(crate::workspace_root()).unwrap_or_else(|error| vec![format!("{error:#}")]);
        println!(
            "{}: {name}",
            if places.is_empty() { "ok" } else { "BROKEN" }
        );
        for place in &places {
            println!("  {place}");
        }
        counts.add(places.is_empty().into());
    }
    counts
}

/// Source files longer than the limit.
fn long_files(root: &Path) -> Result<Vec<String>> {
    let mut places = Vec::new();
    for folder in ["crates", "xtask"] {
        for path in sources(&root.join(folder), &["rs", "S"])? {
            let lines = without_tests(&fs::read_to_string(&path)?).len();
            if lines > max_lines(&relative(root, &path)) && !is_test_file(&path) {
                places.push(format!("{}: {lines} lines", relative(root, &path)));
            }
        }
    }
    Ok(places)
}

/// Files that one architecture has and another has not.
fn unlike_folders(root: &Path) -> Result<Vec<String>> {
    let base = root.join("crates/smpcall-metal/src/arch");
    let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut folders = BTreeSet::new();
    for entry in fs::read_dir(&base)? {
        let path = entry?.path();
        if path.is_dir() {
            let folder = file_name(&path);
            for file in fs::read_dir(&path)? {
                owners
                    .entry(file_name(&file?.path()))
                    .or_default()
                    .insert(folder.clone());
            }
            folders.insert(folder);
        }
    }
    let unlike = owners.into_iter().filter(|(_, have)| *have != folders);
    Ok(unlike
        .map(|(file, have)| format!("{file}: only in {have:?}"))
        .collect())
}

/// Edges without a test, and tests and comments that name an edge that is not in the table.
fn loose_edges(root: &Path) -> Result<Vec<String>> {
    let edges = protocol::edges()?;
    let rows: BTreeSet<u32> = edges.iter().map(|edge| edge.number).collect();
    let (mut tested, mut places) = (BTreeSet::new(), Vec::new());
    for path in sources(&root.join("crates/smpcall"), &["rs"])? {
        for (index, line) in fs::read_to_string(&path)?.lines().enumerate() {
            let test = line
                .trim_start()
                .strip_prefix("fn e")
                .and_then(leading_number);
            tested.extend(test);
            for number in test.into_iter().chain(cited_edges(line)) {
                if !rows.contains(&number) {
                    let file = relative(root, &path);
                    places.push(format!("{file}:{}: E{number} is in no row", index + 1));
                }
            }
        }
    }
    // A row without a test is argued, and says so in its place.
    let expected = edges.iter().filter(|edge| !edge.tests.is_empty());
    let expected: BTreeSet<u32> = expected.map(|edge| edge.number).collect();
    let untested = expected.difference(&tested);
    places.extend(untested.map(|number| format!("E{number}: no test is named e{number}_...")));
    Ok(places)
}

/// Mutants that are on one side only.
fn loose_mutants(root: &Path) -> Result<Vec<String>> {
    let edges = protocol::edges()?;
    let of_edges = edges.into_iter().flat_map(|edge: Edge| edge.mutants);
    let bugs = mutants::bugs().map(String::from);
    let listed: BTreeSet<String> = of_edges.chain(bugs).collect();
    let mut coded = BTreeSet::new();
    for path in sources(&root.join("crates/smpcall/src"), &["rs"])? {
        let text = fs::read_to_string(&path)?;
        for line in text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            coded.extend(
                line.split('"')
                    .skip(1)
                    .step_by(2)
                    .filter(|word| is_mutant(word))
                    .map(String::from),
            );
        }
    }
    let listed_only = listed
        .difference(&coded)
        .map(|name| format!("{name}: not in the code"));
    let coded_only = coded
        .difference(&listed)
        .map(|name| format!("{name}: not in the table"));
    let killed = mutants::killed()?;
    let unkilled = coded.difference(&killed).map(|name| {
        format!("{name}: docs/testing.md has no test that kills it; cargo xtask mutants {name}")
    });
    Ok(listed_only.chain(coded_only).chain(unkilled).collect())
}

/// Places in the core that look past the platform trait.
fn seams_in_the_core(root: &Path) -> Result<Vec<String>> {
    let mut places = Vec::new();
    for path in sources(&root.join("crates/smpcall/src"), &["rs"])? {
        if is_test_file(&path) {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        for (number, line) in without_tests(&text) {
            let code = line.split("//").next().unwrap_or_default();
            let names = ["target_arch", "target_os", "std::", "extern crate std"];
            if names.iter().any(|name| has_word(code, name)) {
                places.push(format!(
                    "{}:{number}: {}",
                    relative(root, &path),
                    line.trim()
                ));
            }
        }
    }
    Ok(places)
}

/// Files that include another from outside their package, where nobody who downloads it has that file. A
/// link inside the package is followed when it is packed; documentation tests stay behind.
fn reaches_outside(root: &Path) -> Result<Vec<String>> {
    let mut places = Vec::new();
    let crates = fs::read_dir(root.join("crates"))?;
    let crates = crates.collect::<Result<Vec<_>, _>>()?;
    let packages = crates.iter().map(fs::DirEntry::path);
    for package in packages.chain([root.join("xtask")]) {
        for path in sources(&package, &["rs"])? {
            let folder = path.parent().unwrap_or(&package);
            let depth = folder.strip_prefix(&package)?.components().count();
            let text = fs::read_to_string(&path)?;
            let up = outside(&text, depth);
            places.extend(up.map(|line| format!("{}: {line}", relative(root, &path))));
        }
    }
    Ok(places)
}

/// The lines that include a file from more folders up than there are in the package.
fn outside(text: &str, depth: usize) -> impl Iterator<Item = &str> {
    let before = std::iter::once("").chain(text.lines());
    let includes = text.lines().zip(before).filter_map(|(line, before)| {
        let (_, file) = line
            .split_once("#[path = \"")
            .or_else(|| line.split_once("include_str!(\""))
            .or_else(|| line.split_once("include_bytes!(\""))?;
        (!before.contains("cfg(doctest)")).then_some((line.trim(), file))
    });
    includes
        .filter(move |(_, file)| file.split('/').take_while(|part| *part == "..").count() > depth)
        .map(|(line, _)| line)
}

/// Whether `name` is in the code, not as the end of a longer word.
fn has_word(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
    })
}

/// The lines of a file with their numbers, without items that exist for tests only.
fn without_tests(text: &str) -> Vec<(usize, &str)> {
    let mut kept = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if !is_test_attribute(line) {
            kept.push((index + 1, line));
            continue;
        }
        let mut depth = 0;
        for (_, line) in lines.by_ref() {
            let attribute = depth == 0 && line.trim_start().starts_with("#[");
            depth += line.matches('{').count() as isize - line.matches('}').count() as isize;
            let line = line.trim_end();
            if !attribute && depth <= 0 && line.ends_with([';', '}', ',']) {
                break;
            }
        }
    }
    kept
}

/// Whether the line is an attribute that keeps what follows for tests.
fn is_test_attribute(line: &str) -> bool {
    let Some(condition) = line.trim_start().strip_prefix("#[cfg(") else {
        return false;
    };
    let positive = condition.replace("not(loom)", "");
    has_word(&positive, "test") && !positive.contains("not(")
}

/// Whether a whole file is for tests.
fn is_test_file(path: &Path) -> bool {
    path.components().any(|part| {
        ["tests", "tests.rs", "shuttles.rs", "testing.rs", "benches"]
            .iter()
            .any(|name| part.as_os_str() == *name)
    })
}

/// The numbers of the edges that a line's comment cites, as in `(E1, E2)` or `E3`.
fn cited_edges(line: &str) -> impl Iterator<Item = u32> {
    let comment = line.split_once("//").map_or("", |(_, comment)| comment);
    let words = comment.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.filter_map(|word| word.strip_prefix('E')?.parse().ok())
}

/// `e7_relaxed`: an edge's number, then words; or `bug_`, then words.
fn is_mutant(word: &str) -> bool {
    if word.starts_with("bug_") {
        return !word.contains(' ');
    }
    let rest = word
        .strip_prefix('e')
        .map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    let numbered = leading_number(word.strip_prefix('e').unwrap_or_default()).is_some();
    numbered && rest.is_some_and(|rest| rest.starts_with('_') && !rest.contains(' '))
}

/// The number at the beginning, if an underscore follows.
fn leading_number(text: &str) -> Option<u32> {
    text.split_once('_')?.0.parse().ok()
}

/// All files below a folder with one of the extensions, in order.
pub(crate) fn sources(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && file_name(&path) != "target" {
            found.extend(sources(&path, extensions)?);
        } else if path
            .extension()
            .is_some_and(|ext| extensions.iter().any(|wanted| ext == *wanted))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A path's last part.
fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// A path as people write it, from the workspace on.
pub(crate) fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::{cited_edges, has_word, is_mutant, is_test_attribute, outside, without_tests};

    #[test]
    fn what_a_package_lacks_may_not_be_included() {
        let text = "#[path = \"../../other/src/a.rs\"]\nmod a;\n#[path = \"../b.rs\"]\nmod b;\n\
                    #[cfg(doctest)]\n#[doc = include_str!(\"../../../README.md\")]\nmod c;\n";
        let found: Vec<_> = outside(text, 1).collect();
        assert_eq!(found, ["#[path = \"../../other/src/a.rs\"]"]);
    }

    #[test]
    fn items_for_tests_are_left_out_wherever_they_stand() {
        let text = "a\n#[cfg(test)]\nuse x;\nb\n#[cfg(all(test, loom))]\n#[path = \"t\"]\n\
                    fn f() {\n  { }\n}\nc\n#[cfg(not(test))]\nd\n#[cfg(test)]\nmod t {\n}\n";
        let kept: Vec<_> = without_tests(text)
            .into_iter()
            .map(|(_, line)| line)
            .collect();
        assert_eq!(kept, ["a", "b", "c", "#[cfg(not(test))]", "d"]);
    }

    #[test]
    fn only_positive_test_attributes_count() {
        assert!(is_test_attribute("#[cfg(all(test, not(loom)))]"));
        assert!(!is_test_attribute("#[cfg(not(all(test, loom)))]"));
        assert!(!is_test_attribute("#[cfg(loom)]"));
    }

    #[test]
    fn words_are_whole_at_their_beginning() {
        assert!(has_word("use std::thread;", "std::"));
        assert!(!has_word("use nostd::thread;", "std::"));
    }

    #[test]
    fn edges_and_mutants_are_recognised() {
        let line = "x; // ORDERING: Release, pairs with (E2, E12). END";
        assert_eq!(cited_edges(line).collect::<Vec<_>>(), [2, 12]);
        assert!(is_mutant("e7_ring_relaxed"));
        assert!(is_mutant("bug_newest_first"));
        assert!(!is_mutant("e_x") && !is_mutant("early") && !is_mutant("e7 x"));
    }
}
