//! Runs programs, and waits no longer than a while.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any program takes on a loaded computer: their own waits give up after a minute.
const LIMIT: Duration = Duration::from_secs(240);

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) status: std::process::ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program; one that does not end has failed, and its last words say in which case.
pub(crate) fn run(program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> End {
    let mut child = Command::new(program)
        .args(arguments)
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let start = Instant::now();
    let mut late = false;
    while child.try_wait().expect("its state").is_none() {
        if start.elapsed() > LIMIT {
            child.kill().expect("our own child");
            late = true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("what it said");
    let end = End {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    assert!(!late, "{} did not end: {end:#?}", program.display());
    end
}
