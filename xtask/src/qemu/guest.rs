//! One running guest: the process, its report line by line, and the monitor's events.
//!
//! Every wait here ends: when the guest is silent too long, runs too long, or stays after its
//! closing line, it is stopped where it is and what its CPUs were doing is told. QEMU cannot
//! outlive this process: it is killed on drop, and by the kernel if we die first.

use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::qmp::{Listener, Monitor};

/// How long a guest may stay after its closing line.
const FAREWELL: Duration = Duration::from_secs(15);

/// What a guest does.
#[derive(Debug)]
enum Event {
    /// It wrote something.
    Bytes(Vec<u8>),
    /// Its report is closed: QEMU has ended.
    Closed,
    /// QEMU's monitor tells something.
    Monitor(Value),
}

/// How long a guest may be silent, and how long it may run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Longest time without a line.
    pub idle: Duration,
    /// Longest time in all.
    pub total: Duration,
}

/// How a guest ended.
#[derive(Debug)]
pub(crate) enum End {
    /// QEMU ended with this status.
    Exit(i32),
    /// It had to be stopped, or QEMU died: why, and its registers if they could be read.
    Stuck {
        why: String,
        registers: Option<String>,
    },
}

/// A running QEMU.
#[derive(Debug)]
pub(crate) struct Guest {
    process: Process,
    events: Receiver<Event>,
    monitor: Monitor,
    /// The beginning of a line that is not yet whole.
    partial: Vec<u8>,
}

/// A child that does not outlive its owner.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Starts a program that the kernel kills if we die first.
    fn spawn(program: &Path, arguments: &[String]) -> Result<Process> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let child = crate::killed_with_us(&mut command).spawn();
        Ok(Process(child.with_context(|| {
            format!("cannot run {}", program.display())
        })?))
    }
}

impl Guest {
    /// Starts QEMU; its monitor connects to `socket`.
    pub(crate) fn start(program: &Path, arguments: &[String], socket: &Path) -> Result<Guest> {
        let listener = Listener::bind(socket)?;
        let mut process = Process::spawn(program, arguments)?;
        let (sender, events) = channel();
        if let Some(stdout) = process.0.stdout.take() {
            let sender = sender.clone();
            std::thread::spawn(move || forward(stdout, &sender));
        }
        let monitor = listener.accept(
            || matches!(process.0.try_wait(), Ok(None)),
            move |event| drop(sender.send(Event::Monitor(event))),
        );
        let _ = std::fs::remove_file(socket);
        Ok(Guest {
            process,
            events,
            monitor: monitor?,
            partial: Vec::new(),
        })
    }

    /// Hands each line to `line`, which says whether it was the closing one, until the end.
    pub(crate) fn watch(
        &mut self,
        limits: Limits,
        mut line: impl FnMut(&str) -> bool,
    ) -> Result<End> {
        let end = self.watch_lines(limits, &mut line);
        let rest = std::mem::take(&mut self.partial);
        if !rest.is_empty() {
            line(String::from_utf8_lossy(&rest).trim_end());
        }
        end
    }

    /// Hands on the whole lines that are there; says whether one was the closing one.
    fn take_lines(&mut self, line: &mut impl FnMut(&str) -> bool) -> bool {
        let mut closing = false;
        while let Some(end) = self.partial.iter().position(|&byte| byte == b'\n') {
            let text: Vec<u8> = self.partial.drain(..=end).collect();
            closing |= line(String::from_utf8_lossy(&text).trim_end());
        }
        closing
    }

    /// Until the end, or until a limit is passed.
    fn watch_lines(&mut self, limits: Limits, line: &mut impl FnMut(&str) -> bool) -> Result<End> {
        let started = Instant::now();
        let mut idle_end = started + limits.idle;
        let mut total_end = started + limits.total;
        let mut closed = false;
        loop {
            let patience = idle_end
                .min(total_end)
                .saturating_duration_since(Instant::now());
            match self.events.recv_timeout(patience) {
                Ok(Event::Bytes(bytes)) => {
                    idle_end = Instant::now() + limits.idle;
                    self.partial.extend(bytes);
                    if self.take_lines(line) && !closed {
                        closed = true;
                        total_end = Instant::now() + FAREWELL;
                    }
                }
                Ok(Event::Monitor(event)) => {
                    if let Some(end) = self.on_event(&event) {
                        return Ok(end);
                    }
                }
                Ok(Event::Closed) | Err(RecvTimeoutError::Disconnected) => return self.reap(),
                Err(RecvTimeoutError::Timeout) => {
                    let (idle, total) = (limits.idle.as_secs(), limits.total.as_secs());
                    let why = match (closed, Instant::now() >= total_end) {
                        (true, _) => "it stays after its closing line".to_owned(),
                        (false, true) => format!("it runs for more than {total} s"),
                        (false, false) => format!("no output for {idle} s"),
                    };
                    return Ok(self.stuck(why));
                }
            }
        }
    }

    /// A machine that shut down is let go; one that reset has failed.
    fn on_event(&mut self, event: &Value) -> Option<End> {
        match (event["event"].as_str()?, event["data"]["reason"].as_str()) {
            ("SHUTDOWN", Some("guest-reset")) => Some(
                self.stuck("it reset itself (a triple fault, if it did not mean to)".to_owned()),
            ),
            ("SHUTDOWN", _) => {
                // The exit status that the guest chose is kept by QEMU for its own end.
                let _ = self.monitor.execute("quit", json!({}));
                None
            }
            ("GUEST_PANICKED" | "INTERNAL_ERROR", _) => {
                Some(self.stuck(format!("QEMU says {event}")))
            }
            _ => None,
        }
    }

    /// QEMU closed its output: waits for its status.
    fn reap(&mut self) -> Result<End> {
        let status = self.process.0.wait()?;
        Ok(match status.code() {
            Some(code) => End::Exit(code),
            None => End::Stuck {
                why: format!("QEMU died: {status}"),
                registers: None,
            },
        })
    }

    /// Stops the machine and reads its registers.
    fn stuck(&mut self, why: String) -> End {
        let _ = self.monitor.execute("stop", json!({}));
        let registers = self.monitor.human("info registers -a").ok();
        End::Stuck { why, registers }
    }
}

/// Hands on what the guest writes, as it comes.
fn forward(mut stdout: ChildStdout, events: &Sender<Event>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stdout.read(&mut buffer) {
        if events
            .send(Event::Bytes(buffer[..length].to_vec()))
            .is_err()
        {
            return;
        }
    }
    let _ = events.send(Event::Closed);
}
