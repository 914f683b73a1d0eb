//! A machine as the torture sees it.

use std::fmt;
use std::time::Duration;

use smpcall_hosted::{AttachError, CpuId, Hosted, HostedSmp, Machine, ROOM, WORDS};
use smpcall_torture::torture::FOREIGNERS;
use smpcall_torture::{Attached, Attachment, Lab};

/// How the machine's busy CPUs hear of calls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Where they look.
    Cooperative,
    /// A signal interrupts them.
    PreEmptive,
}

/// A machine under torture.
pub(crate) struct Rack {
    pub(crate) machine: Machine,
    delivery: Delivery,
}

impl Rack {
    /// CPUs `0..cpus`.
    pub(crate) fn new(cpus: usize, delivery: Delivery) -> Self {
        let builder = Machine::builder().count(cpus);
        let builder = match delivery {
            Delivery::Cooperative => builder,
            // SAFETY: 1, 2 — the torture's functions neither allocate, lock nor panic; 3, 4 — its jobs
            // run on their threads' stacks; 5 — nobody else uses the signal.
            Delivery::PreEmptive => unsafe { builder.preempt() },
        };
        Self {
            machine: builder.boot().expect("boots"),
            delivery,
        }
    }
}

impl Lab<WORDS, ROOM> for Rack {
    type P = Hosted;

    fn smp(&self) -> &HostedSmp {
        &self.machine
    }

    fn kicks(&self) -> u64 {
        let platform = self.smp().platform();
        platform.kicks() + platform.wakes() + platform.signals()
    }

    fn threads(&self) -> usize {
        FOREIGNERS - 1
    }

    fn beside(&self, threads: usize, work: &(dyn Fn(usize) + Sync), lead: &mut dyn FnMut()) {
        std::thread::scope(|scope| {
            for i in 0..threads {
                scope.spawn(move || work(i));
            }
            lead();
        });
    }

    fn interrupts(&self) -> bool {
        self.delivery == Delivery::PreEmptive
    }

    fn attaches(&self) -> bool {
        true
    }

    fn attach(&self, cpu: CpuId, as_cpu: &mut dyn FnMut(&dyn Attached)) -> Attachment {
        match self.machine.attach(cpu) {
            Ok(here) => {
                as_cpu(&Here(&here));
                here.detach();
                Attachment::Was
            }
            Err(AttachError::Busy { .. }) => Attachment::Busy,
            Err(error) => {
                self.log(format_args!("a thread did not become CPU {cpu}: {error}"));
                Attachment::Failed
            }
        }
    }

    fn log(&self, line: fmt::Arguments<'_>) {
        eprintln!("smpcall: {line}");
    }
}

/// A thread that is a CPU.
struct Here<'a>(&'a smpcall_hosted::Attached);

impl Attached for Here<'_> {
    fn sleep(&self, limit_ns: u64) {
        self.0.sleep(Some(Duration::from_nanos(limit_ns)));
    }

    fn serve(&self) -> bool {
        self.0.serve();
        self.0.is_online()
    }
}
