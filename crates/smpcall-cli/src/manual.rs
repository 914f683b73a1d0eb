//! `smpcall completions` and `smpcall man`: made from the same description as the help.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::Args;
use crate::{Failure, Verdict};

/// Prints a completion script.
pub(crate) fn completions(shell: Shell) -> Verdict {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "smpcall", &mut script);
    print(&script)
}

/// Prints the manual page of the program, or of one command.
pub(crate) fn page(command: Option<&str>) -> Verdict {
    let mut program = Args::command();
    // Subcommands learn the options of every command.
    program.build();
    let described = match command {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(name).cloned();
            let found = found.ok_or_else(|| Failure::Usage(format!("no command is `{name}`")))?;
            found.display_name(format!("smpcall-{name}"))
        }
    };
    let mut page = Vec::new();
    Man::new(described).render(&mut page)?;
    print(&page)
}

fn print(text: &[u8]) -> Verdict {
    io::stdout().lock().write_all(text)?;
    Ok(true)
}
