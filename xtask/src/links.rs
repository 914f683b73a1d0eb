//! `cargo xtask links`: what the documents point to is there.
//!
//! Checked in every Markdown file of the workspace: links to files and to headings, and in
//! ARCHITECTURE.md also every path and every `Type::function` that it names, for that map is worth
//! nothing if it is old. In the sources: documents that a comment names. Addresses on the Web
//! are not fetched: a check must not fail because a server is down. Links inside rustdoc are
//! checked by rustdoc itself, in the step `doc`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::test::Counts;

/// Checks all documents, printing what leads nowhere.
pub(crate) fn check() -> Result<Counts> {
    let root = crate::workspace_root();
    let mut counts = Counts::default();
    for file in files(root, &["md"])? {
        let text = fs::read_to_string(&file)?;
        report(&mut counts, root, &file, dead_links(root, &file, &text));
    }
    let sources = Sources::read(root)?;
    let map = root.join("ARCHITECTURE.md");
    let text = fs::read_to_string(&map)?;
    report(&mut counts, root, &map, sources.unknown_names(root, &text));
    for (file, text) in &sources.files {
        let missing = missing_documents(root, text);
        if !missing.is_empty() {
            report(&mut counts, root, file, missing);
        }
    }
    Ok(counts)
}

fn report(counts: &mut Counts, root: &Path, file: &Path, faults: Vec<String>) {
    let name = file.strip_prefix(root).unwrap_or(file).display();
    for fault in &faults {
        println!("{name}: {fault}");
    }
    counts.add(faults.is_empty().into());
}

/// Links of a document whose target is not there.
fn dead_links(root: &Path, file: &Path, text: &str) -> Vec<String> {
    let folder = file.parent().unwrap_or(root);
    let is_dead = |link: &&str| {
        let (path, heading) = link.split_once('#').unwrap_or((link, ""));
        if path.contains("://") || path.starts_with("mailto:") {
            return false;
        }
        let target = if path.is_empty() {
            file.to_owned()
        } else {
            folder.join(path)
        };
        let has_heading = || {
            let text = fs::read_to_string(&target).unwrap_or_default();
            headings(&text).contains(heading)
        };
        !target.exists() || (!heading.is_empty() && !has_heading())
    };
    let prose = without_code(text);
    let links = links(&prose);
    links
        .into_iter()
        .filter(is_dead)
        .map(|link| format!("the link to `{link}` leads nowhere"))
        .collect()
}

/// The targets of `[text](target)`, and of `[text]: target` at the beginning of a line.
fn links(text: &str) -> Vec<&str> {
    let inline = text.match_indices("](").filter_map(|(at, _)| {
        let target = text[at + 2..].split(')').next()?;
        // A title may follow.
        target.split_whitespace().next()
    });
    let defined = text.lines().filter_map(|line| {
        let (name, target) = line.split_once("]: ")?;
        (name.starts_with('[') && !name.contains(' ')).then_some(target.trim())
    });
    inline.chain(defined).collect()
}

/// The text without its blocks of code, and without code inside lines.
fn without_code(text: &str) -> String {
    let mut kept = String::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            kept.extend(line.split('`').step_by(2));
            kept.push('\n');
        }
    }
    kept
}

/// The anchors of a document's headings, as the usual forges make them.
fn headings(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    lines.map(anchor).collect()
}

/// What a text has between backticks.
fn code_words(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The workspace's sources.
struct Sources {
    files: Vec<(PathBuf, String)>,
}

impl Sources {
    fn read(root: &Path) -> Result<Self> {
        let mut read = Vec::new();
        for file in files(root, &["rs", "S", "toml"])? {
            let text = fs::read_to_string(&file)?;
            read.push((file, text));
        }
        Ok(Self { files: read })
    }

    /// Paths and functions that a document names and that are not there.
    fn unknown_names(&self, root: &Path, text: &str) -> Vec<String> {
        let mut unknown = Vec::new();
        for word in code_words(text) {
            let known = if let Some((_, function)) = word.rsplit_once("::") {
                self.has_function(function.trim_end_matches("()"))
            } else if word.contains('.') || word.contains('/') {
                alternatives(word)
                    .iter()
                    .all(|path| self.has_path(root, path))
            } else {
                true
            };
            if !known {
                unknown.push(format!("`{word}` is not in the sources"));
            }
        }
        unknown
    }

    fn has_function(&self, name: &str) -> bool {
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let item = ["fn ", "struct ", "enum ", "const ", "type ", "trait "];
        let defined = |text: &str| {
            item.iter().any(|item| {
                text.match_indices(&format!("{item}{name}"))
                    .any(|(at, found)| {
                        let next = text[at + found.len()..].chars().next();
                        !next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
                    })
            })
        };
        !plain || self.files.iter().any(|(_, text)| defined(text))
    }

    /// From the root on, or as the end of a source's path; `<arch>` stands for each architecture.
    fn has_path(&self, root: &Path, path: &str) -> bool {
        let path = path.replace("<arch>", "x86_64");
        let is_end = |file: &PathBuf| file.ends_with(&path);
        let is_file_name = path.ends_with(".rs") || path.ends_with(".S");
        let is_path = ["crates/", "docs/", "xtask/"]
            .iter()
            .any(|start| path.starts_with(start));
        if is_path {
            return root.join(&path).exists();
        }
        !is_file_name || self.files.iter().any(|(file, _)| is_end(file))
    }
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn alternatives(path: &str) -> Vec<String> {
    let Some((start, rest)) = path.split_once('{') else {
        return vec![path.to_owned()];
    };
    let Some((names, end)) = rest.split_once('}') else {
        return vec![path.to_owned()];
    };
    names
        .split(',')
        .map(|name| format!("{start}{name}{end}"))
        .collect()
}

/// Documents that a source's comments name and that are not there.
fn missing_documents(root: &Path, text: &str) -> Vec<String> {
    let comments = text
        .lines()
        .filter_map(|line| line.split_once("//"))
        .map(|(_, comment)| comment);
    let words = comments.flat_map(|comment| {
        comment.split(|c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c)))
    });
    let named = words.filter(|word| word.starts_with("docs/") && word.contains(".md"));
    named
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| !root.join(word).exists())
        .map(|word| format!("a comment names `{word}`, which is not there"))
        .collect()
}

/// All files of the workspace with one of the endings, without what is built or hidden.
pub(crate) fn files(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        // A link's target is checked where it is.
        if entry.file_type()?.is_symlink() {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                found.extend(files(&path, endings)?);
            }
        } else if endings
            .iter()
            .any(|end| path.extension().is_some_and(|have| have == *end))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::{alternatives, code_words, dead_links, headings, links, without_code};
    use std::path::Path;

    #[test]
    fn links_are_found_and_code_is_none() {
        let text = "a [b](c.md#d) and `[x](y)`\n```\n[z](w)\n```\n[name]: e.md\n";
        assert_eq!(links(&without_code(text)), ["c.md#d", "e.md"]);
    }

    #[test]
    fn a_link_to_nothing_is_dead_and_one_to_the_web_is_not_asked() {
        let root = crate::workspace_root();
        let text = "# A b\n[1](#a-b) [2](#c) [3](no.md) [4](README.md) [5](https://example.org/x)";
        let dead = dead_links(root, &root.join("ARCHITECTURE.md"), text);
        // The headings are those of the file.
        assert_eq!(dead.len(), 3, "{dead:?}");
        assert!(dead.iter().any(|fault| fault.contains("no.md")));
    }

    #[test]
    fn headings_become_anchors() {
        assert!(
            headings("## The life of a `call`, in short\n").contains("the-life-of-a-call-in-short")
        );
    }

    #[test]
    fn names_are_what_stands_between_backticks() {
        assert_eq!(
            code_words("a `b` c `d::e` f").collect::<Vec<_>>(),
            ["b", "d::e"]
        );
        assert_eq!(alternatives("a/{b,c}.rs"), ["a/b.rs", "a/c.rs"]);
        assert!(Path::new("a/b.rs").ends_with("b.rs"));
    }
}
