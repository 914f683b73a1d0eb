//! Pre-emptive delivery: a busy CPU is interrupted at any instruction, by a real-time signal.
//!
//! A sender's `send_ipi` is `tgkill` to the CPU's thread, and the handler is the IPI vector: it drains
//! as `handle_ipi` does, unless the soft mask is off (`mask.rs`), which defers it to the moment that
//! turns it on. The doorbell decides as ever whether a signal is due: a CPU that polls, sleeps or has
//! been rung gets none. A call that was served at a poll point meanwhile leaves the handler nothing to
//! run.
//!
//! The handler allocates nothing, takes no lock, does not unwind and keeps `errno`; it never goes away
//! again, for a signal that comes late would end the process. What the functions themselves may do is
//! the caller's promise: [`Builder::preempt`].

use std::io;
use std::mem::MaybeUninit;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering, fence};

use libc::c_int;
use smpcall::CpuId;

use crate::local;
use crate::platform::Hosted;
use crate::{BootError, Builder};

/// How often a signal is tried for which the kernel has no room.
const TRIES: u32 = 16;

impl Builder {
    /// Interrupts busy CPUs at any instruction, by the signal [`PREEMPT_SIGNAL`](preempt_signal).
    ///
    /// A job that makes no poll points then takes calls at once, `kick_all_cpus_sync` waits for no
    /// poll point, and work that sleeps in a system call takes calls there. Regions under
    /// [`irqs_off`](smpcall::Smp::irqs_off) are not interrupted: what arrives meanwhile runs when
    /// they end. Without this, calls wait for poll points.
    ///
    /// ```
    /// use smpcall_hosted::{CpuId, Machine};
    /// use std::sync::atomic::{AtomicBool, Ordering::{Acquire, Release}};
    /// static STOP: AtomicBool = AtomicBool::new(false);
    ///
    /// // SAFETY: 1, 2 — the one function that is called stores to an atomic; 3, 4, 5 — the one job is a
    /// // loop on its thread's own stack, and nothing else here uses signals.
    /// let machine = unsafe { Machine::builder().count(2).preempt() }.boot()?;
    /// let cpu1 = CpuId::new(1);
    /// let job = machine.spawn_on(cpu1, || while !STOP.load(Acquire) {})?;
    /// machine.call(cpu1, || STOP.store(true, Release))?; // in the middle of the loop
    /// assert!(job.join().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Safety
    /// Every function that is called on, or posted to, a CPU of this machine may run between any two
    /// instructions of what that CPU does otherwise, perhaps in the middle of `malloc` or with a lock
    /// held. You promise, for each of them and for the machine as long as it lives:
    /// 1. The function is async-signal-safe, and so are the drop of what it captures, of a result
    ///    that nobody takes, and the waker of a ticket. It does not allocate, free, print, block or take
    ///    a lock; of what the interrupted work uses without atomics (thread-local data, for one)
    ///    it touches only what that work uses with interrupts off. It may post. `may-sleep` work
    ///    (`run_on_cpu`, `post_task`, `spawn_on`) is the interrupted, not a function in this sense.
    /// 2. It does not panic, for a panic allocates, and nothing in it unwinds or jumps out of it.
    /// 3. Work on the CPUs stands interrupted system calls. The handler has `SA_RESTART`; calls that
    ///    the kernel never restarts (`poll`, `epoll_wait`, `nanosleep`, those on sockets with a timeout:
    ///    signal(7)) answer `EINTR`. `errno` is kept.
    /// 4. Every stack that work on a CPU runs on has 32 KiB left: the handler runs on the stack that
    ///    it interrupts, not on an alternate one (`sigaltstack`), and the processor's registers alone
    ///    may take 11 KiB.
    /// 5. The signal is this library's: nobody sets its action, waits for it or sends it. Work that
    ///    blocks it (`pthread_sigmask`) delays calls.
    #[must_use]
    pub unsafe fn preempt(self) -> Self {
        // SAFETY: as this function.
        unsafe { self.preempt_by(preempt_signal()) }
    }

    /// As [`preempt`](Self::preempt), by a signal of your choice, where another library has the
    /// usual one. Machines may share it. A real-time signal needs room in the kernel's queue
    /// (`RLIMIT_SIGPENDING`); a standard one, as `SIGURG`, does not.
    ///
    /// # Safety
    /// As [`preempt`](Self::preempt).
    #[must_use]
    pub unsafe fn preempt_by(mut self, signal: c_int) -> Self {
        self.preempt = Some(signal);
        self
    }
}

/// The signal that [`Builder::preempt`] uses: the third real-time one.
#[doc(alias = "SIGRTMIN")]
pub fn preempt_signal() -> c_int {
    libc::SIGRTMIN() + 2
}

/// How the CPUs of a machine are interrupted.
#[derive(Debug)]
pub(crate) struct Preemption {
    signal: c_int,
    process: libc::pid_t,
    /// The thread that is each CPU; 0: none.
    threads: Box<[AtomicI32]>,
    undelivered: AtomicU64,
}

impl Preemption {
    /// For CPUs `0..cpus`; the signal has its handler from here on.
    pub(crate) fn new(signal: c_int, cpus: usize) -> Result<Self, BootError> {
        install(signal)?;
        Ok(Self {
            signal,
            process: std::process::id().cast_signed(),
            threads: (0..cpus).map(|_| AtomicI32::new(0)).collect(),
            undelivered: AtomicU64::new(0),
        })
    }

    /// This thread is CPU `cpu` from here on, and takes the signal whatever mask it inherited.
    pub(crate) fn enter(&self, cpu: u32) {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: room for a set, which the call initialises.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: initialised above.
        let mut set = unsafe { set.assume_init() };
        // SAFETY: a set and a signal that has a handler.
        unsafe { libc::sigaddset(&mut set, self.signal) };
        // SAFETY: a set to read; the old one is not wanted.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut()) };
        // ORDERING: Relaxed — the opening of the CPU's doorbell publishes it (E70).
        self.threads[cpu as usize].store(this_thread(), Ordering::Relaxed);
    }

    /// This thread is that CPU no more; another may be by now.
    pub(crate) fn leave(&self, cpu: u32) {
        // ORDERING: Relaxed — a signal to a thread that is no CPU finds nothing to do.
        let _ = self.threads[cpu as usize].compare_exchange(
            this_thread(),
            0,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Interrupts a CPU; any context. Without room for the signal it stays with the doorbell: the
    /// CPU hears at its next poll point, or when a stall's report sends it again.
    pub(crate) fn interrupt(&self, cpu: CpuId) {
        // ORDERING: Acquire — with the doorbell that said that this CPU is there comes its
        // thread's number (E70).
        fence(Ordering::Acquire);
        // ORDERING: Relaxed — ordered by the fence.
        let thread = self.threads[cpu.index()].load(Ordering::Relaxed);
        for _ in 0..TRIES {
            // SAFETY: no memory is handed over, and the signal has its handler for ever.
            let sent =
                unsafe { libc::syscall(libc::SYS_tgkill, self.process, thread, self.signal) };
            if sent == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EAGAIN) {
                // Sent, or the thread is gone, and its CPU has drained what it had accepted.
                return;
            }
            rustix::thread::sched_yield();
        }
        // ORDERING: Relaxed — a statistic.
        self.undelivered.fetch_add(1, Ordering::Relaxed);
    }
}

impl Hosted {
    /// How many signals the kernel had no room for (`RLIMIT_SIGPENDING`) though they were tried again:
    /// each delayed calls until the next poll point. 0 without [`Builder::preempt`].
    pub fn undelivered_signals(&self) -> u64 {
        let preemption = self.preemption.as_ref();
        // ORDERING: Relaxed — a statistic.
        preemption.map_or(0, |it| it.undelivered.load(Ordering::Relaxed))
    }

    /// Takes the calls of this thread's CPU: what the signal is for. Interrupts are off.
    pub(crate) fn serve_interrupt(&self) {
        // A signal that somebody else sent must not interrupt work that did not ask for it.
        if self.preemption.is_none() {
            return;
        }
        if let Some(inner) = self.inner.get() {
            // SAFETY: this thread is a CPU of the machine and keeps it alive.
            let inner = unsafe { &*inner.as_ptr() };
            keeping_errno(|| inner.smp.handle_ipi());
        }
    }
}

/// The signal's handler.
extern "C" fn on_signal(_signal: c_int) {
    local::interrupted();
}

/// Runs `f` and leaves `errno` as it was: interrupted code may be about to look at it.
fn keeping_errno(f: impl FnOnce()) {
    // SAFETY: no precondition; the address is this thread's own word.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let kept = unsafe { *errno };
    f();
    // SAFETY: as above.
    unsafe { *errno = kept };
}

/// Gives the signal its handler, for ever; it must not have another one.
fn install(signal: c_int) -> Result<(), BootError> {
    // Two machines that boot at the same time must not see half of each other's look and change.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let ours = on_signal as extern "C" fn(c_int) as usize;
    let before = action(signal, None)?.sa_sigaction;
    if before == ours {
        return Ok(());
    }
    if before != libc::SIG_DFL && before != libc::SIG_IGN {
        return Err(BootError::SignalTaken { signal });
    }
    // SAFETY: all zero is a valid `sigaction`, with an empty mask.
    let mut new = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    new.sa_sigaction = ours;
    new.sa_flags = libc::SA_RESTART;
    action(signal, Some(&new))?;
    Ok(())
}

/// Sets a signal's action, if there is a new one; answers the one before.
fn action(signal: c_int, new: Option<&libc::sigaction>) -> Result<libc::sigaction, BootError> {
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: null or a valid action, whose handler does what handlers may; room for the old one.
    if unsafe { libc::sigaction(signal, new, before.as_mut_ptr()) } != 0 {
        let error = io::Error::last_os_error();
        return Err(BootError::Signal { signal, error });
    }
    // SAFETY: zeroed, and written by the call that succeeded.
    Ok(unsafe { before.assume_init() })
}

/// The kernel's number of the calling thread.
fn this_thread() -> libc::pid_t {
    rustix::thread::gettid().as_raw_nonzero().get()
}
