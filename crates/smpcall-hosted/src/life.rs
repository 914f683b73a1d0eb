//! What is behind the guard of a thread that attached: its time as a CPU, and the end of it.
//!
//! A thread-local holds it as well as the guard, so that a guard which is forgotten ends with its thread: the
//! local's destructor takes the CPU offline. It ends at the top of the thread only, where no frame of the
//! library's and none that counts on it is below: not inside a called function, a task or a job, and
//! not with interrupts off. Then the place is released, and another thread may be this CPU.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use smpcall::CpuId;

use crate::doorbell::Doorbell;
use crate::machine::Inner;
use crate::{HostedSmp, local};

/// Where the thread is found that attached as a CPU; the platform has one for each CPU.
#[derive(Debug, Default)]
pub(crate) struct Home {
    /// Is a thread attached, or still on its way out?
    taken: AtomicBool,
    /// Made by the first that attaches, and kept as long as the machine: a late signal must not
    /// reach another file.
    doorbell: OnceLock<Doorbell>,
}

impl Home {
    /// Is a thread attached here?
    pub(crate) fn is_taken(&self) -> bool {
        // ORDERING: Acquire — pairs with `release`: that thread is no CPU any more.
        self.taken.load(Ordering::Acquire)
    }

    pub(crate) fn take(&self) {
        // ORDERING: Relaxed — under the lock of up and down.
        self.taken.store(true, Ordering::Relaxed);
    }

    fn release(&self) {
        // ORDERING: Release — all that the thread did as a CPU; pairs with `is_taken`.
        self.taken.store(false, Ordering::Release);
    }

    /// The descriptor, new if there is none yet.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        if self.doorbell.get().is_none() {
            // Another thread's may have been first: then this one is closed.
            let _ = self.doorbell.set(Doorbell::new()?);
        }
        Ok(())
    }

    /// The descriptor of a thread that attached.
    ///
    /// # Panics
    /// If none ever did.
    pub(crate) fn doorbell(&self) -> &Doorbell {
        self.doorbell.get().expect("prepared before it attached")
    }

    /// Sender: signals the thread, which armed.
    pub(crate) fn signal(&self) {
        // A job may have armed a CPU that never attached and has no descriptor; it parks.
        if let Some(doorbell) = self.doorbell.get() {
            doorbell.signal();
        }
    }
}

/// The time of a thread as a CPU.
pub(crate) struct Life {
    inner: Arc<Inner>,
    cpu: CpuId,
    is_over: Cell<bool>,
}

/// Ends the life of a thread that ends, whatever became of its guard.
#[derive(Default)]
struct LastWill(RefCell<Option<Rc<Life>>>);

thread_local! {
    static LAST_WILL: LastWill = LastWill::default();
}

impl Drop for LastWill {
    fn drop(&mut self) {
        if let Some(life) = self.0.take() {
            life.end_with_thread();
        }
    }
}

/// May this thread become a CPU? Not while it is one, and not while its locals are destroyed.
pub(crate) fn is_free() -> bool {
    LAST_WILL.try_with(|will| will.0.borrow().is_none()) == Ok(true)
}

/// This thread is the CPU no more, and may become another.
pub(crate) fn rest(inner: &Inner, cpu: CpuId) {
    inner.jobs(cpu).close();
    local::resign();
    inner.smp.platform().home(cpu).release();
    // Not if the thread ends: then it is this will that is carried out.
    let _ = LAST_WILL.try_with(|will| will.0.take());
}

impl Life {
    /// The calling thread has become the CPU.
    pub(crate) fn begin(inner: Arc<Inner>, cpu: CpuId) -> Rc<Self> {
        let life = Rc::new(Self {
            inner,
            cpu,
            is_over: Cell::new(false),
        });
        LAST_WILL.with(|will| will.0.replace(Some(Rc::clone(&life))));
        life
    }

    pub(crate) fn cpu(&self) -> CpuId {
        self.cpu
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Is the thread no longer this CPU?
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    pub(crate) fn smp(&self) -> &HostedSmp {
        &self.inner.smp
    }

    /// May the CPU change its state here? Not inside a called function, a task or a job, and not
    /// with interrupts off: frames of the library's, or of code that counts on it, are below.
    pub(crate) fn is_at_top(&self) -> bool {
        self.smp().can_wait().is_ok() && !self.smp().in_task() && !local::in_job()
    }

    /// Takes the CPU offline; what it accepted runs before.
    pub(crate) fn end(&self) {
        if self.is_over.replace(true) {
            return;
        }
        self.inner.finish_jobs(self.cpu);
        // An error says that a task or a job has done it.
        let _ = self.smp().offline_this_cpu();
        rest(&self.inner, self.cpu);
    }

    /// As [`Self::end`], when the thread ends: no frame is below, so a guard that keeps interrupts off has
    /// been forgotten. Not in a forked child, and not if a called function ends the process: the
    /// locals of its thread are destroyed below it.
    fn end_with_thread(&self) {
        local::irqs_restore(true);
        if self.is_at_top() && !self.smp().platform().is_forked() {
            self.end();
        }
    }

    /// Leaves if somebody asked it to.
    pub(crate) fn leave_if_asked(&self) {
        if !self.smp().is_asked_to_leave() {
            return;
        }
        let left = !self.inner.finish_jobs(self.cpu) || self.smp().leave_if_asked();
        if left {
            self.is_over.set(true);
            rest(&self.inner, self.cpu);
        } else {
            // Who asked gave up: the CPU stays.
            self.inner.jobs(self.cpu).open();
        }
    }

    /// Is there something for [`Attached::serve`] that is not a call?
    pub(crate) fn has_work(&self) -> bool {
        let smp = self.smp();
        smp.has_tasks() || self.inner.has_jobs(self.cpu) || smp.is_asked_to_leave()
    }
}
