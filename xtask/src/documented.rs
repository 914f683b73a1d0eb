//! The commands that the documents name are understood: a reader types them word by word.
//!
//! Every piece of code in a Markdown file that begins with `cargo xtask` is parsed as the program would
//! parse it, with stand-ins for the words in capitals. Steps, tests, packages and examples that it names
//! exist. The commands of the program `smpcall` are parsed by its own tests.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::fs;

use clap::{CommandFactory, Parser};

use crate::links;
use crate::{Cli, Task, test, workspace_root};

/// What a document writes for whatever the reader wants, and one such thing.
const STAND_INS: &[(&str, &str)] = &[
    ("ARCH", "x86_64"),
    ("CPUS", "4"),
    ("DIR", "/tmp"),
    ("N", "4"),
    ("NAME", "call"),
    ("STEP", "tidy"),
];

/// The words of a command, without a comment behind it.
fn words(command: &str) -> Vec<String> {
    let command = command.split("  #").next().unwrap_or_default();
    let stood_in = command.split_whitespace().map(|word| {
        let mut word = word.to_owned();
        for (name, instead) in STAND_INS {
            let whole = |part: &str| part == *name;
            if word.split('-').any(whole) {
                let parts = word
                    .split('-')
                    .map(|part| if whole(part) { instead } else { part });
                word = parts.collect::<Vec<_>>().join("-");
            }
        }
        word
    });
    stood_in.collect()
}

/// What is wrong with a command of `cargo`, if anything is.
fn fault(command: &str) -> Option<String> {
    let words = words(command);
    let after = |option: &str| {
        let index = words.iter().position(|word| word == option)?;
        words.get(index + 1).cloned()
    };
    if words[1] == "xtask" {
        // Without options it may be the name alone, of a task that needs some.
        if let [_, _, task] = words.as_slice() {
            let known = Cli::command().find_subcommand(task).is_some();
            return (!known).then(|| "no such task".to_owned());
        }
        return match Cli::try_parse_from(&words[1..]) {
            Err(error) => Some(error.to_string()),
            Ok(Cli {
                command: Task::Test { only },
            }) => only.into_iter().find(|step| !test::is_step(step)),
            Ok(_) => None,
        };
    }
    let package = after("-p")?;
    let folder = match package.as_str() {
        "xtask" => workspace_root().join("xtask"),
        _ => workspace_root().join("crates").join(&package),
    };
    let file = match (after("--test"), after("--example")) {
        (Some(name), _) => folder.join(format!("tests/{name}.rs")),
        (_, Some(name)) => folder.join(format!("examples/{name}.rs")),
        _ => folder,
    };
    (!file.exists()).then(|| format!("no {}", file.display()))
}

/// Inline code and lines of code blocks that begin with `cargo`.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut paragraphs = vec![String::new()];
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if inside {
            found.push(line.to_owned());
        } else if line.is_empty() {
            paragraphs.push(String::new());
        } else if let Some(paragraph) = paragraphs.last_mut() {
            // A command may go on in the next line.
            *paragraph += line;
            paragraph.push(' ');
        }
    }
    for paragraph in &paragraphs {
        found.extend(paragraph.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    found.retain(|code| code.starts_with("cargo ") && code.split_whitespace().count() > 1);
    found
}

#[test]
fn every_command_of_the_documents_is_understood() {
    let (mut seen, mut faults) = (0, Vec::new());
    for file in links::files(workspace_root(), &["md"]).expect("the documents") {
        let text = fs::read_to_string(&file).expect("a document");
        for command in commands(&text) {
            seen += 1;
            let fault = fault(&command);
            faults.extend(fault.map(|fault| format!("{}: `{command}`: {fault}", file.display())));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(seen > 50, "only {seen} commands were found");
}

#[test]
fn a_command_that_is_none_is_noticed() {
    assert!(fault("cargo xtask no-such-task").is_some());
    assert!(fault("cargo xtask test --only no-such-step").is_some());
    assert!(fault("cargo test -p smpcall-hosted --test no_such_test").is_some());
    assert_eq!(fault("cargo xtask test --only boot-ARCH-8"), None);
    let text = "a `cargo xtask\ntidy` b\n\n```sh\ncargo xtask links    # all\n```\n`cargo`\n";
    assert_eq!(
        commands(text),
        ["cargo xtask links    # all", "cargo xtask tidy"]
    );
}
