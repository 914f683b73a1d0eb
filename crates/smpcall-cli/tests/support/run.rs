//! Running the program, with a limit, and reading what it printed.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// No command below takes nearly as long, even where many share the computer.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a run of the program left behind.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// The JSON lines of one type.
    pub(crate) fn rows(&self, kind: &str) -> Vec<Value> {
        let lines = self
            .stdout
            .lines()
            .map(|line| match serde_json::from_str(line) {
                Ok(value) => value,
                Err(error) => panic!("not one JSON object a line: {line}: {error}"),
            });
        lines.filter(|row: &Value| row["type"] == kind).collect()
    }

    pub(crate) fn must_be(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "exit code; it printed:\n{}\n{}",
            self.stdout,
            self.stderr
        );
        self
    }
}

/// Held by who runs the program: each run takes every CPU of the computer, and some are to get work done in a
/// second or two.
static COMPUTER: Mutex<()> = Mutex::new(());

/// Runs the program alone; kills it when the time is up.
pub(crate) fn smpcall(arguments: &[&str]) -> Run {
    let _alone = COMPUTER.lock().unwrap_or_else(PoisonError::into_inner);
    let mut child = Command::new(env!("CARGO_BIN_EXE_smpcall"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let code = wait(&mut child, arguments);
    Run {
        code,
        stdout: stdout.join().expect("standard output is read"),
        stderr: stderr.join().expect("standard error is read"),
    }
}

pub(crate) fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        let mut pipe = pipe.expect("the pipe was asked for");
        pipe.read_to_string(&mut text)
            .expect("the program prints UTF-8");
        text
    })
}

pub(crate) fn wait(child: &mut Child, arguments: &[&str]) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the program is waited for") {
            return status.code();
        }
        if start.elapsed() > PATIENCE {
            let waits = who_waits(child.id());
            child.kill().expect("the program is killed");
            panic!("{arguments:?} did not end in {PATIENCE:?}; its threads:\n{waits}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The threads of a process, and what the kernel says each is doing.
fn who_waits(process: u32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let line = |file: std::path::PathBuf| std::fs::read_to_string(file).unwrap_or_default();
    tasks
        .map(|task| {
            let (name, stat) = (
                line(task.path().join("comm")),
                line(task.path().join("wchan")),
            );
            format!("{} {stat}\n", name.trim())
        })
        .collect()
}
