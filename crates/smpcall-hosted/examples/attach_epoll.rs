//! A thread with an epoll loop of its own becomes a CPU: sockets and calls wake the same loop.
//!
//! `cargo run -p smpcall-hosted --example attach_epoll`

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use smpcall_hosted::{CpuId, Machine, WithoutClosure};

/// What an event of the loop is.
const CALLS: u64 = 0;
const SOCKET: u64 = 1;

/// The loop: echoes what comes by the socket, and serves calls, until the socket's other end is closed.
fn event_loop(machine: &Machine, mut socket: UnixStream) -> Result<(), Box<dyn std::error::Error>> {
    let here = machine.attach(CpuId::new(1))?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut events = Vec::with_capacity(8);
    let wanted = [(here.as_fd(), CALLS), (socket.as_fd(), SOCKET)];
    for (source, name) in wanted {
        epoll::add(&epoll, source, EventData::new_u64(name), EventFlags::IN)?;
    }
    loop {
        // `true`: from here on a call makes the descriptor readable, so this thread may sleep.
        if here.prepare_to_sleep() {
            events.clear();
            epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        }
        here.serve();
        for event in events.drain(..) {
            if event.data.u64() == SOCKET {
                let mut bytes = [0; 64];
                match socket.read(&mut bytes)? {
                    0 => return Ok(()),
                    read => socket.write_all(&bytes[..read])?,
                }
            }
        }
    }
}

/// Talks to the loop in both ways.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Machine::builder().count(2).only_attached().boot()?;
    let cpu1 = CpuId::new(1);
    let (mut ours, theirs) = UnixStream::pair()?;
    thread::scope(|scope| {
        let server = scope.spawn(|| event_loop(&machine, theirs).map_err(|why| why.to_string()));
        let mut echo = [0; 5];
        ours.write_all(b"hello")?;
        ours.read_exact(&mut echo)?;
        // It answered, so it has attached.
        let on = machine.call(cpu1, || machine.current_cpu());
        println!(
            "echo {:?}, call on {:?}",
            echo.map(char::from),
            on.without_closure()?
        );
        drop(ours);
        server.join().map_err(|_| "the loop panicked")??;
        assert!(!machine.is_online(cpu1), "its guard went with the loop");
        Ok(())
    })
}
