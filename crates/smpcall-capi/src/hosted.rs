//! The instance of a Linux program: one machine between boot and shut-down.
//!
//! A CPU of the machine finds the instance in a variable of its thread, for the machine outlives
//! its threads. Any other thread takes a reference under a lock that is held for a moment, and
//! keeps it for the call; shut-down takes the machine out of the slot, so that no reference is
//! made any more, waits until those that exist are given back, and ends the machine.

use core::ffi::{c_int, c_void};
use std::cell::Cell;
use std::fmt;
use std::io::{self, Write};
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::thread;
use std::time::Duration;

use smpcall_hosted::{BootError, BootParams, CpuId, HostCpus, HostedSmp, Machine};

use crate::cpus;
use crate::mask;
use crate::misuse::{Misuse, Outcome, errno};
use crate::single::{call_of, id};
use crate::types::{Call, NR_CPUS, SmpCallFunc};

/// The core's instance.
pub(crate) type Instance = HostedSmp;

/// `SMPCALL_ALL_CPUS`.
const ALL_CPUS: c_int = -1;

/// How often shut-down looks whether the last call of another thread has returned.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// The machine that is booted.
static SLOT: RwLock<Option<Arc<Machine>>> = RwLock::new(None);

/// Held by who boots or shuts down.
static CHANGE: Mutex<()> = Mutex::new(());

/// Spawned functions that have not returned.
static SPAWNED: Mutex<usize> = Mutex::new(0);
static SPAWNED_FEWER: Condvar = Condvar::new();

thread_local! {
    /// On a CPU's thread: its machine's instance.
    static OWN: Cell<*const Instance> = const { Cell::new(ptr::null()) };
    /// On another thread: in how many calls into this library it is.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn machine() -> Outcome<Arc<Machine>> {
    let slot = SLOT.read().unwrap_or_else(PoisonError::into_inner);
    slot.clone().ok_or(Misuse::NotBooted)
}

/// Runs `f` with the instance, which stays alive meanwhile.
pub(crate) fn with<R>(f: impl FnOnce(&Instance) -> Outcome<R>) -> Outcome<R> {
    let own = OWN.get();
    if !own.is_null() {
        // SAFETY: set on this thread by `cpu_starts`; the machine joins its threads before it ends.
        return f(unsafe { &*own });
    }
    let machine = machine()?;
    INSIDE.set(INSIDE.get() + 1);
    let result = f(&machine);
    INSIDE.set(INSIDE.get() - 1);
    result
}

/// On a CPU's thread, before it takes calls.
pub(crate) fn cpu_starts() {
    OWN.set(machine().map_or(ptr::null(), |machine| ptr::from_ref(&**machine)));
}

/// The right to boot or to shut down. Not waited for: who has it may be waiting for this thread.
fn change() -> Outcome<MutexGuard<'static, ()>> {
    match CHANGE.try_lock() {
        Ok(change) => Ok(change),
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => Err(Misuse::Changing),
    }
}

/// May this thread wait for the machine's end?
fn may_wait_for_machine() -> Outcome {
    if OWN.get().is_null() && INSIDE.get() == 0 {
        Ok(())
    } else {
        Err(Misuse::OnACpu)
    }
}

/// Says something to the operator; a standard error that is closed changes nothing.
pub(crate) fn report(message: fmt::Arguments<'_>) {
    report_as_is(format_args!("smpcall: {message}"));
}

/// As [`report`], for a line that says itself whose it is.
pub(crate) fn report_as_is(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// One turn of a waiting loop of C's.
pub(crate) fn pause() {
    // The thread waited for may need this processor.
    thread::yield_now();
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smpcall_boot(nr_cpus: c_int) -> c_int {
    errno(change().and_then(|_change| boot(nr_cpus)))
}

fn boot(nr_cpus: c_int) -> Outcome {
    if machine().is_ok() {
        return Err(Misuse::AlreadyBooted);
    }
    let count = match nr_cpus {
        ALL_CPUS => HostCpus::allowed().map_or(0, |host| host.mask().len()),
        _ => usize::try_from(nr_cpus).unwrap_or(0),
    };
    if count == 0 || count > NR_CPUS as usize {
        report(format_args!(
            "smpcall_boot: {nr_cpus} CPUs: there are 1 to {NR_CPUS}, or SMPCALL_ALL_CPUS"
        ));
        return Err(Misuse::Bad("the number of CPUs"));
    }
    // One CPU first, so that the callbacks are there when the others come.
    let params = BootParams {
        max_cpus: 1,
        ..cpus::params()
    };
    let machine = Machine::builder().count(count).params(params).boot();
    let machine = Arc::new(machine.map_err(of_boot)?);
    machine.register(&cpus::CALLBACKS)?;
    *SLOT.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&machine));
    cpus::publish(&machine);
    let first = CpuId::new(0);
    machine.call(first, cpu_starts)?;
    mask::comes_online(first);
    cpus::bring_up(&machine).map_err(|(cpu, misuse)| {
        report(format_args!(
            "smpcall_boot: CPU {cpu} did not come up: {misuse}"
        ));
        shut_down(machine);
        misuse
    })
}

/// Names what the machine could not do.
fn of_boot(error: BootError) -> Misuse {
    report(format_args!("smpcall_boot: {error}"));
    match error {
        BootError::Cpu { error, .. } => error.into(),
        _ => Misuse::Bad("the machine does not boot"),
    }
}

/// Ends the machine: nobody makes a reference from here on, and those that exist come back.
fn shut_down(machine: Arc<Machine>) {
    drop(SLOT.write().unwrap_or_else(PoisonError::into_inner).take());
    while Arc::strong_count(&machine) > 1 {
        thread::sleep(LOOK_EVERY);
    }
    drop(machine);
    cpus::retract();
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smpcall_shutdown() -> c_int {
    errno(may_wait_for_machine().and_then(|()| {
        let _change = change()?;
        let machine = machine()?;
        join();
        shut_down(machine);
        Ok(())
    }))
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smpcall_join() -> c_int {
    errno(may_wait_for_machine().map(|()| join()))
}

fn join() {
    let none_left = SPAWNED_FEWER.wait_while(lock(&SPAWNED), |spawned| *spawned > 0);
    drop(none_left.unwrap_or_else(PoisonError::into_inner));
}

/// A spawned function, from before it is accepted until it has returned or was refused.
struct Spawned(Call);

impl Spawned {
    fn new(call: Call) -> Self {
        *lock(&SPAWNED) += 1;
        Self(call)
    }

    /// Runs it.
    fn run(self) {
        self.0.run();
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        *lock(&SPAWNED) -= 1;
        SPAWNED_FEWER.notify_all();
    }
}

/// See `smpcall.h`.
///
/// # Safety
/// 1. The function may be called with `arg` on that CPU, later.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn smpcall_spawn(
    cpu: c_int,
    func: Option<SmpCallFunc>,
    arg: *mut c_void,
) -> c_int {
    errno(call_of(func, arg).and_then(|call| spawn(id(cpu), call)))
}

fn spawn(cpu: CpuId, call: Call) -> Outcome {
    let machine = machine()?;
    let spawned = Spawned::new(call);
    machine.spawn_on(cpu, move || spawned.run())?;
    Ok(())
}
