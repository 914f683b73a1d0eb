//! Steps that use one core, several at a time: each is a process of its own, `xtask test --only STEP`.
//!
//! What a step says goes to a file, and is printed as one piece under its heading when it ends. Steps of
//! one architecture share a target folder: one would wait for the other's cargo, or boot the image that the
//! other is just building. So a lane takes the first step that waits and whose architecture no other lane
//! is at. A process that dies or does not say its counts is a step that failed.

use std::fs::{self, File};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use super::{Counts, Step};

/// Lanes at most: two were measured, and what waits for time has patience enough for them.
const MOST_LANES: usize = 2;

/// What the lanes share.
#[derive(Debug)]
struct Plan<'a> {
    /// Steps that no lane has taken.
    waiting: Vec<&'a Step>,
    /// Steps that run now.
    running: Vec<&'a Step>,
    /// Steps that ended, in the order in which they did.
    ended: Vec<(&'static str, Counts)>,
}

impl<'a> Plan<'a> {
    /// Takes the first step that nothing that runs stands in the way of.
    fn take(&mut self) -> Option<&'a Step> {
        let free = |step: &&Step| {
            let mut running = self.running.iter();
            running.all(|other| other.run.arch() != step.run.arch())
        };
        let step = self.waiting.remove(self.waiting.iter().position(free)?);
        self.running.push(step);
        Some(step)
    }

    /// Notes that a step is through.
    fn end(&mut self, step: &Step, counts: Counts) {
        self.running.retain(|other| other.name != step.name);
        self.ended.push((step.name, counts));
    }
}

/// Runs these steps, as many at a time as there are cores for, but two of one architecture never.
pub(super) fn run(steps: &[Step]) -> Vec<(&'static str, Counts)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    run_by(steps, cores.min(MOST_LANES), process)
}

/// The same with this many lanes, and another way to run a step; a panic there is a failure.
fn run_by(
    steps: &[Step],
    lanes: usize,
    run: impl Fn(&Step) -> Counts + Sync,
) -> Vec<(&'static str, Counts)> {
    let plan = Mutex::new(Plan {
        waiting: steps.iter().collect(),
        running: Vec::new(),
        ended: Vec::new(),
    });
    let one_ended = Condvar::new();
    let lane = || {
        while let Some(step) = next(&plan, &one_ended) {
            let counts = catch_unwind(AssertUnwindSafe(|| run(step)));
            lock(&plan).end(step, counts.unwrap_or(false.into()));
            one_ended.notify_all();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(lane);
        }
    });
    plan.into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .ended
}

/// A lane's next step; none if no step waits. While others stand in the way of those that do, waits for
/// one to end, which each does within its limits.
fn next<'a>(plan: &Mutex<Plan<'a>>, one_ended: &Condvar) -> Option<&'a Step> {
    let mut plan = lock(plan);
    loop {
        if let Some(step) = plan.take() {
            return Some(step);
        }
        if plan.waiting.is_empty() {
            return None;
        }
        plan = one_ended.wait(plan).unwrap_or_else(PoisonError::into_inner);
    }
}

/// No step runs under the lock, and what it guards is whole at each line.
fn lock<'a, 'b>(plan: &'a Mutex<Plan<'b>>) -> MutexGuard<'a, Plan<'b>> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a step in a process of its own, and prints what it said.
fn process(step: &Step) -> Counts {
    println!("-- {} runs beside others", step.name);
    // The file that this process was started from, even if cargo has put a new one in its place.
    let mut command = Command::new("/proc/self/exe");
    command.args(["test", "--only", step.name]);
    let (said, counts) = match watch(&mut command, step.name) {
        Ok((said, status)) => judge(&said, status),
        Err(error) => (
            format!("\n== {}\nxtask: {error:#}\n", step.name),
            false.into(),
        ),
    };
    // One piece: the lock is held from the first byte to the last.
    let mut out = std::io::stdout().lock();
    // Who reads our output is gone if this fails; the counts still say how it went.
    let _ = out.write_all(said.as_bytes()).and_then(|()| out.flush());
    counts
}

/// Runs a command to its end; what it said on both outputs is also kept, as `target/steps/NAME.txt`.
fn watch(command: &mut Command, name: &str) -> Result<(String, ExitStatus)> {
    let folder = crate::workspace_root().join("target/steps");
    fs::create_dir_all(&folder)?;
    // Under a name of its own until it ends: two runs may be at the same step.
    let path = folder.join(format!(".{name}.{}", std::process::id()));
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    command
        .current_dir(crate::workspace_root())
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    let status = crate::killed_with_us(command).status();
    let status = status.context("cannot run a step")?;
    let said = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    fs::rename(&path, folder.join(format!("{name}.txt")))?;
    Ok((String::from_utf8_lossy(&said).into_owned(), status))
}

/// What a step said without the closing lines of its process, which are for one that runs alone, and its
/// counts. Counts that are missing, and an exit code that does not fit them, are a failure.
fn judge(said: &str, status: ExitStatus) -> (String, Counts) {
    let body = said.trim_end();
    let (body, last) = body.rsplit_once('\n').unwrap_or(("", body));
    let Some(mut counts) = closing(last) else {
        let missing = format!("{said}\nxtask: the step ended with {status} and no counts\n");
        return (missing, false.into());
    };
    let body = match body.rsplit_once("\nfailed: ") {
        Some((body, hint)) if !hint.trim_end().contains('\n') => body,
        _ => body,
    };
    let mut said = format!("{}\n", body.trim_end());
    if status.success() != (counts.failed == 0) {
        said.push_str(&format!(
            "xtask: the step ended with {status} nevertheless\n"
        ));
        counts.add(false.into());
    }
    (said, counts)
}

/// The counts in a line `3 passed, 0 failed`.
fn closing(line: &str) -> Option<Counts> {
    let (passed, failed) = line.strip_suffix(" failed")?.split_once(" passed, ")?;
    Some(Counts {
        passed: passed.parse().ok()?,
        failed: failed.parse().ok()?,
    })
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use std::process::Command;
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    use super::{judge, run_by, watch};
    use crate::arch::Arch::{Aarch64, X86_64};
    use crate::test::{Counts, Run, Step, Turn};

    /// Longer than the other lane takes to get a step on the busiest computer.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn step(name: &'static str, run: Run) -> Step {
        let turn = Turn::Beside;
        Step { name, turn, run }
    }

    fn steps() -> [Step; 4] {
        [
            step("a", Run::Builds(X86_64)),
            step("b", Run::Builds(X86_64)),
            step("c", Run::Builds(Aarch64)),
            step("d", Run::Builds(Aarch64)),
        ]
    }

    /// What a shell says and how it ends, as of a step.
    fn shell(name: &str, script: &str) -> (String, Counts) {
        let (said, status) = watch(Command::new("sh").args(["-c", script]), name).unwrap();
        judge(&said, status)
    }

    #[test]
    fn a_step_that_panics_beside_others_is_counted_as_failed_and_the_others_still_run() {
        let run = |step: &Step| match step.name {
            "a" => panic!("as a step may"),
            _ => true.into(),
        };
        let mut ended = run_by(&steps(), 2, run);
        ended.sort_by_key(|(name, _)| *name);
        let failed = |(name, counts): &(&'static str, Counts)| (*name, counts.failed);
        let ended: Vec<_> = ended.iter().map(failed).collect();
        assert_eq!(ended, [("a", 1), ("b", 0), ("c", 0), ("d", 0)]);
    }

    #[test]
    fn two_steps_run_at_a_time_and_never_two_of_one_architecture() {
        // Each step waits until another architecture's runs, too, or has nothing left to run.
        let (running, changed) = (Mutex::new(Vec::new()), Condvar::new());
        let met = Mutex::new(0);
        let run = |step: &Step| {
            let arch = step.run.arch();
            let mut now = running.lock().unwrap();
            assert!(!now.contains(&arch), "two of {arch:?} at a time");
            now.push(arch);
            changed.notify_all();
            if step.name == "a" || step.name == "c" {
                let alone = |now: &mut Vec<_>| now.len() < 2 && *met.lock().unwrap() == 0;
                let (back, late) = changed.wait_timeout_while(now, PATIENCE, alone).unwrap();
                assert!(!late.timed_out(), "{} runs alone", step.name);
                *met.lock().unwrap() += 1;
                now = back;
            }
            now.retain(|other| *other != arch);
            changed.notify_all();
            true.into()
        };
        let ended = run_by(&steps(), 2, run);
        let failed = ended.iter().map(|(_, counts)| counts.failed).sum::<u64>();
        assert_eq!((ended.len(), failed), (4, 0), "{ended:?}");
    }

    #[test]
    fn a_process_that_dies_or_says_no_counts_is_a_step_that_failed() {
        let (said, counts) = shell("test-dies", "echo half; kill -9 $$");
        assert_eq!(counts, false.into());
        assert!(
            said.contains("half\n") && said.contains("signal: 9"),
            "{said}"
        );
        let (said, counts) = shell("test-silent", "exit 0");
        assert_eq!(counts, false.into());
        assert!(said.contains("no counts"), "{said}");
    }

    #[test]
    fn counts_are_taken_from_the_closing_line_which_is_not_repeated() {
        let script = "echo '== x'; echo bad >&2; printf '\\nfailed: x; one alone\\n'; \
                      printf '\\n3 passed, 2 failed\\n'; exit 1";
        let (said, counts) = shell("test-counts", script);
        assert_eq!((counts.passed, counts.failed), (3, 2));
        assert_eq!(said, "== x\nbad\n");
    }

    #[test]
    fn an_exit_code_that_does_not_fit_the_counts_is_a_failure() {
        let (said, counts) = shell("test-exit", "echo '3 passed, 0 failed'; exit 101");
        assert_eq!((counts.passed, counts.failed), (3, 1));
        assert!(said.contains("nevertheless"), "{said}");
    }
}
