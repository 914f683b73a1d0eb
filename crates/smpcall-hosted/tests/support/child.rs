//! A test's second half in a process of its own, for what ends a process or must have it alone.

use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const CHILD: &str = "SMPCALL_TEST_CHILD";

/// Longer than any child takes.
const LIMIT: Duration = Duration::from_secs(120);

/// How a child ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    /// Both streams.
    pub(crate) said: String,
}

/// Are we the child that runs this test?
pub(crate) fn is_child(test: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|name| name == test)
}

/// Runs one test of this program again, as the child.
pub(crate) fn run(test: &str) -> End {
    let this = std::env::current_exe().expect("this program");
    let mut child = Command::new(this)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let start = Instant::now();
    let mut late = false;
    while child.try_wait().expect("the child's state").is_none() {
        if start.elapsed() > LIMIT {
            // The child's own watchdog has said who waits by now.
            child.kill().expect("our own child");
            late = true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("what the child said");
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!late, "the child did not end in {LIMIT:?}:\n{said}");
    End {
        status: output.status,
        said,
    }
}

impl End {
    /// Its half of the test passed.
    #[track_caller]
    pub(crate) fn passed(&self) {
        assert!(self.status.success(), "{self:?}");
        assert!(self.said.contains("1 passed"), "the test ran: {self:?}");
    }
}
