//! QEMU's machine protocol: one JSON object a line, replies and events on one socket.
//!
//! We listen and QEMU connects, so that no event of the machine's first moments is missed.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How long QEMU may take to connect or to answer, on a computer that has more to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A socket that QEMU will connect to.
#[derive(Debug)]
pub(crate) struct Listener(UnixListener);

/// The connection.
#[derive(Debug)]
pub(crate) struct Monitor {
    stream: UnixStream,
    replies: Receiver<Value>,
}

impl Listener {
    /// Listens at `path`.
    pub(crate) fn bind(path: &Path) -> Result<Listener> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path)
            .with_context(|| format!("cannot listen on {}", path.display()))?;
        listener.set_nonblocking(true)?;
        Ok(Listener(listener))
    }

    /// Waits for QEMU as long as `alive` says that it runs; `event` gets each event's object.
    pub(crate) fn accept<E>(&self, mut alive: impl FnMut() -> bool, event: E) -> Result<Monitor>
    where
        E: Fn(Value) + Send + 'static,
    {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match self.0.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                    return Err(error.into());
                }
                Err(_) if !alive() => bail!("QEMU ended at once"),
                Err(_) if Instant::now() > deadline => bail!("QEMU did not open its monitor"),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        stream.set_nonblocking(false)?;
        let (sender, replies) = channel();
        let reader = BufReader::new(stream.try_clone()?);
        std::thread::spawn(move || read(reader, &sender, event));
        let mut monitor = Monitor { stream, replies };
        monitor.execute("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }
}

/// Sorts what QEMU says into replies and events, until it hangs up.
fn read(reader: BufReader<UnixStream>, replies: &Sender<Value>, event: impl Fn(Value)) {
    for line in reader.lines().map_while(Result::ok) {
        let Ok(message) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        if message.get("event").is_some() {
            event(message);
        } else if message.get("QMP").is_none() && replies.send(message).is_err() {
            return;
        }
    }
}

impl Monitor {
    /// Runs a command and returns what it returns.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut message = json!({ "execute": command, "arguments": arguments }).to_string();
        message.push('\n');
        self.stream.write_all(message.as_bytes())?;
        let reply = self.replies.recv_timeout(PATIENCE);
        let mut reply = match reply {
            Ok(reply) => reply,
            Err(RecvTimeoutError::Disconnected) => bail!("QEMU ended, it said why above"),
            Err(RecvTimeoutError::Timeout) => bail!("QEMU does not answer {command}"),
        };
        match reply.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => bail!("{command}: {}", reply["error"]["desc"]),
        }
    }

    /// Runs a command of the monitor for people and returns its text.
    pub(crate) fn human(&mut self, line: &str) -> Result<String> {
        let value = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        Ok(value.as_str().unwrap_or_default().to_owned())
    }
}
