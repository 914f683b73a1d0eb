//! `cargo xtask api`: what the libraries offer, as text; and whether each item is shown in use.
//!
//! The listing comes from the pages that rustdoc made, so it has exactly what a user sees: each
//! item with its signature, its methods, and the traits that it implements. `docs/api` keeps the
//! listing, so that a change of the interface is a change in review; `--bless` writes it anew.
//!
//! An item is shown if its name stands in code that readers see and the tests compile: a
//! block of code in the documentation or in a guide, an example, or the kernel image, which is the
//! largest example of the bare-metal library.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::test::Counts;
use crate::tidy::{relative, sources};

/// The libraries whose interface is promised, and where the step `doc` leaves their pages.
const CRATES: &[(&str, &str)] = &[
    ("smpcall", "target/doc/smpcall"),
    ("smpcall-hosted", "target/doc/smpcall_hosted"),
    (
        "smpcall-metal",
        "target/metal/x86_64/x86_64-unknown-none/doc/smpcall_metal",
    ),
];

/// Those whose pages may come from Debian's newest compiler: another one may word them otherwise, so they are
/// compared for a release only.
const FLOATING: &[&str] = &["smpcall-metal"];

/// Parts of a page that have the item's own members.
const MEMBERS: &[&str] = &[
    "implementations",
    "variants",
    "fields",
    "required-associated-consts",
    "provided-associated-consts",
    "required-associated-types",
    "required-methods",
    "provided-methods",
];

/// What to do with the listing that `docs/api` keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Nothing may be gone or changed; what is new is told. For every run of all checks.
    Promise,
    /// It must be the same, and each item must be in an example. For a release.
    Check,
    /// Write it.
    Bless,
}

/// One item's page.
struct Page {
    /// `struct CpuMask`.
    name: String,
    /// Its declaration, its members and its traits.
    lines: Vec<String>,
    /// Itself and its functions, by name.
    names: Vec<String>,
}

/// Checks both, or writes the listing.
pub(crate) fn run(kept: Kept) -> Result<Counts> {
    let root = crate::workspace_root();
    let shown = words(&shown_code(root)?);
    let mut counts = Counts::default();
    for (name, folder) in CRATES {
        let pages = pages(&root.join(folder))?;
        let hidden = not_shown(&pages, &shown);
        for item in &hidden {
            println!("{name}: {item} is in no example");
        }
        if kept != Kept::Promise {
            counts.add(hidden.is_empty().into());
        }
        let file = root.join(format!("docs/api/{name}.txt"));
        let listing = listing(&pages);
        if kept == Kept::Bless {
            fs::create_dir_all(root.join("docs/api"))?;
            fs::write(&file, &listing)?;
        }
        let old = fs::read_to_string(&file).unwrap_or_default();
        if kept != Kept::Promise || !FLOATING.contains(name) {
            counts.add(agree(name, &old, &listing, kept).into());
        }
    }
    Ok(counts)
}

/// Prints how two listings differ; is it more than is allowed?
fn agree(name: &str, old: &str, new: &str, kept: Kept) -> bool {
    let (before, after): (BTreeSet<_>, BTreeSet<_>) =
        (old.lines().collect(), new.lines().collect());
    for line in before.difference(&after) {
        println!("{name}: gone: {}", line.trim());
    }
    for line in after.difference(&before) {
        println!("{name}: new: {}", line.trim());
    }
    if old != new {
        println!("{name}: if that is meant: cargo xtask api --bless, and a line in CHANGELOG.md");
    }
    match kept {
        Kept::Promise => before.is_subset(&after) && !before.is_empty(),
        Kept::Check | Kept::Bless => old == new,
    }
}

fn listing(pages: &[Page]) -> String {
    let page = |page: &Page| format!("{}\n  {}\n", page.name, page.lines.join("\n  "));
    pages.iter().map(page).collect()
}

/// Names of items and functions that no example has.
fn not_shown(pages: &[Page], shown: &BTreeSet<String>) -> Vec<String> {
    let hidden = |page: &Page| {
        let names = page.names.iter().filter(|name| !shown.contains(*name));
        names
            .map(|name| format!("{}: {name}", page.name))
            .collect::<Vec<_>>()
    };
    pages.iter().flat_map(hidden).collect()
}

/// The pages of a crate's items, by name.
fn pages(folder: &Path) -> Result<Vec<Page>> {
    let mut pages = Vec::new();
    collect(folder, "", &mut pages)?;
    pages.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(
        !pages.is_empty(),
        "{}: no items: has rustdoc changed?",
        folder.display()
    );
    Ok(pages)
}

/// Adds the pages of a module and of the public modules in it.
fn collect(folder: &Path, module: &str, pages: &mut Vec<Page>) -> Result<()> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("no {}: run cargo xtask test --only doc", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        // A private module's folder has no page of its own.
        if path.join("index.html").is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            collect(&path, &format!("{module}{name}::"), pages)?;
        }
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut parts = file.split('.');
        let (Some(kind), Some(name), Some("html")) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        // A macro has a second page, by another name, that leads to its own.
        if !name.ends_with('!') {
            let mut page = page(kind, name, &fs::read_to_string(&path)?);
            page.name = format!("{kind} {module}{name}");
            pages.push(page);
        }
    }
    Ok(())
}

fn page(kind: &str, name: &str, html: &str) -> Page {
    let mut lines = Vec::new();
    let mut names = vec![name.to_owned()];
    let declaration = between(html, "item-decl\"><code>", "</code></pre>");
    lines.extend(declaration.map(text));
    // Each part of the page begins with a heading of the second order.
    for part in html.split("<h2 id=\"").skip(1) {
        let id = part.split('"').next().unwrap_or_default();
        if id == "trait-implementations" {
            lines.extend(headers(part, "<h3 class=\"code-header\">", "</h3>"));
        } else if MEMBERS.contains(&id) {
            lines.extend(headers(part, "<h4 class=\"code-header\">", "</h4>"));
            lines.extend(headers(part, "<h3 class=\"code-header\">", "</h3>"));
            names.extend(functions(part));
        }
    }
    Page {
        name: format!("{kind} {name}"),
        lines,
        names,
    }
}

/// The functions that a part of a page declares.
fn functions(part: &str) -> impl Iterator<Item = String> {
    let links = part.split("class=\"fn\">").skip(1);
    links
        .filter_map(|link| link.split('<').next())
        .map(str::to_owned)
}

fn headers(part: &str, start: &str, end: &str) -> Vec<String> {
    let found = part.split(start).skip(1);
    found
        .filter_map(|rest| rest.split(end).next())
        .map(text)
        .collect()
}

fn between<'a>(html: &'a str, start: &str, end: &str) -> Option<&'a str> {
    html.split_once(start)?.1.split(end).next()
}

/// What a reader sees of a piece of a page, on one line.
fn text(html: &str) -> String {
    let mut plain = String::new();
    let mut in_tag = false;
    for letter in html.chars() {
        match letter {
            '<' => in_tag = true,
            '>' => in_tag = false,
            letter if !in_tag => plain.push(letter),
            _ => {}
        }
    }
    let entities = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&nbsp;", " "),
        ("&amp;", "&"),
    ];
    for (entity, letter) in entities {
        plain = plain.replace(entity, letter);
    }
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All code that readers see: examples, and blocks of code in documents and documentation.
fn shown_code(root: &Path) -> Result<String> {
    let mut code = String::new();
    for path in sources(&root.join("crates"), &["rs"])? {
        let source = fs::read_to_string(&path)?;
        let name = relative(root, &path);
        if name.contains("/examples/") || name.starts_with("crates/smpcall-kernel/src/") {
            code.push_str(&source);
        } else {
            let documentation = source.lines().filter_map(|line| {
                let line = line.trim_start();
                line.strip_prefix("///")
                    .or_else(|| line.strip_prefix("//!"))
            });
            code.push_str(&blocks(documentation.map(str::trim_start)));
        }
    }
    let documents = [root.join("docs"), root.join("crates")];
    for folder in &documents {
        for path in sources(folder, &["md"])? {
            code.push_str(&blocks(fs::read_to_string(&path)?.lines()));
        }
    }
    code.push_str(&blocks(fs::read_to_string(root.join("README.md"))?.lines()));
    Ok(code)
}

/// The blocks of Rust code among these lines.
fn blocks<S: AsRef<str>>(lines: impl Iterator<Item = S>) -> String {
    let mut code = String::new();
    let mut inside = None;
    for line in lines {
        let line = line.as_ref();
        match (line.strip_prefix("```"), inside) {
            (Some(kind), None) => {
                inside = Some(matches!(kind, "" | "rust" | "no_run" | "should_panic"));
            }
            (Some(_), Some(_)) => inside = None,
            (None, Some(true)) => {
                code.push_str(line);
                code.push('\n');
            }
            _ => {}
        }
    }
    code
}

fn words(code: &str) -> BTreeSet<String> {
    let words = code.split(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
    words.map(str::to_owned).collect()
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::{Kept, agree, blocks, not_shown, page, text, words};

    const HTML: &str = "item-decl\"><code>pub struct <a>A</a>&lt;T&gt;</code></pre>\
        <h2 id=\"implementations\">x</h2><h3 class=\"code-header\">impl A</h3>\
        <h4 class=\"code-header\">pub fn <a href=\"#\" class=\"fn\">go</a>(&amp;self)</h4>\
        <h2 id=\"blanket-implementations\">x</h2><h4 class=\"code-header\">fn from()</h4>";

    #[test]
    fn a_page_lists_what_is_the_items_own() {
        let page = page("struct", "A", HTML);
        assert_eq!(
            page.lines,
            ["pub struct A<T>", "pub fn go(&self)", "impl A"]
        );
        assert_eq!(page.names, ["A", "go"]);
        assert_eq!(text("a &lt;b&gt;\n  <i>c</i>"), "a <b> c");
    }

    #[test]
    fn what_is_gone_breaks_the_promise_and_what_is_new_does_not() {
        assert!(agree("a", "f\n", "f\ng\n", Kept::Promise));
        assert!(!agree("a", "f\n", "f\ng\n", Kept::Check));
        assert!(!agree("a", "f\ng\n", "f\n", Kept::Promise));
        assert!(
            !agree("a", "", "f\n", Kept::Promise),
            "the listing is not there"
        );
    }

    #[test]
    fn an_item_that_no_example_has_is_named() {
        let code = blocks(
            [
                "```",
                "let a = A::new();",
                "```",
                "go",
                "```text",
                "go",
                "```",
            ]
            .into_iter(),
        );
        let hidden = not_shown(&[page("struct", "A", HTML)], &words(&code));
        assert_eq!(hidden, ["struct A: go"]);
    }
}
