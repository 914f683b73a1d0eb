//! Panics of called functions, where the platform catches them.
#![expect(
    clippy::missing_panics_doc,
    reason = "panics are what these cases are about"
)]

use core::pin::pin;
use core::sync::atomic::{AtomicU32, Ordering};

use smpcall::{CpuId, Csd, Platform};

use super::case_list;
use crate::check::{Check, OrFail, ensure, ensure_eq};
use crate::cx::Cx;
use crate::lab::Lab;

case_list! {
    1 Panics a_panic_reaches_the_waiting_caller_and_the_cpu_lives_on,
    1 Panics a_broadcasts_first_panic_in_cpu_order_comes_after_all_have_run,
    1 Panics a_posted_functions_panic_stays_with_its_cpu,
    1 Panics a_panicking_predicate_has_queued_nothing,
    2 Panics a_tasks_panic_reaches_the_caller,
    1 Panics a_panic_in_a_drop_is_contained,
}

/// Panics when it is dropped.
struct Mine;

impl Drop for Mine {
    fn drop(&mut self) {
        panic!("a drop that panics, as the case wants");
    }
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    /// Runs `f`, which shall panic; answers the panic's number, if it has one.
    #[track_caller]
    fn panics<R>(&self, f: impl FnOnce() -> R) -> Result<Option<u64>, crate::Failure> {
        match self.smp().platform().catch(f) {
            Ok(_) => Err(crate::Failure::new(format_args!("nothing panicked here"))),
            Err(panic) => Ok(self.lab().panic_code(&panic)),
        }
    }

    /// Does a call to the CPU still work, in the right context?
    fn lives_on(&self, cpu: CpuId) -> Check {
        let right = self
            .smp()
            .call(cpu, || self.handled_by(cpu))
            .or_fail("call")?;
        ensure!(
            right,
            "CPU {cpu} runs calls in the wrong place after a panic"
        );
        let platform = self.smp().platform();
        ensure!(platform.irqs_enabled(), "interrupts are off after a panic");
        self.smp()
            .kick_all_cpus_sync()
            .map(|_| ())
            .or_fail("a wait after a panic")
    }

    fn a_panic_reaches_the_waiting_caller_and_the_cpu_lives_on(&self) -> Check {
        for cpu in self.online().iter().take(8) {
            let code = u64::from(cpu.get()) + 7;
            let fail = move || -> u64 { panic!("on purpose: {code}") };
            let got = self.panics(|| self.smp().call(cpu, fail).map_err(|r| r.error))?;
            ensure_eq!(got, Some(code), "the panic that came from `call`");
            self.lives_on(cpu)?;
            let csd = pin!(Csd::new(move || panic!("on purpose: {code}")));
            let got = self.panics(|| self.smp().call_csd(cpu, &csd))?;
            ensure_eq!(got, Some(code), "the panic that came from `call_csd`");
            ensure!(!csd.is_queued(), "the descriptor is queued after a panic");
            self.lives_on(cpu)?;
        }
        Ok(())
    }

    fn a_broadcasts_first_panic_in_cpu_order_comes_after_all_have_run(&self) -> Check {
        let ran = AtomicU32::new(0);
        let fail = |cpu: CpuId| {
            // ORDERING: Relaxed — the broadcast orders it.
            ran.fetch_add(1, Ordering::Relaxed);
            panic!("on purpose: {cpu}");
        };
        let got = self.panics(|| self.smp().on_each_cpu(fail).map_err(|r| r.error))?;
        let first = self.online().first().map(|cpu| u64::from(cpu.get()));
        ensure_eq!(got, first, "the CPU whose panic came");
        let all = self.online().len() as u32;
        ensure_eq!(
            ran.load(Ordering::Relaxed),
            all,
            "CPUs that ran when the panic came"
        );
        self.online()
            .iter()
            .take(8)
            .try_for_each(|cpu| self.lives_on(cpu))
    }

    fn a_posted_functions_panic_stays_with_its_cpu(&self) -> Check {
        self.scope((), |s| {
            for (n, cpu) in (1_u64..).zip(self.online().iter().take(8)) {
                s.post(cpu, |_| panic!("on purpose: a post"))
                    .or_fail("post")?;
                let csd = pin!(s.csd(|_| panic!("on purpose: a descriptor")));
                s.post_csd(cpu, csd.as_ref()).or_fail("post_csd")?;
                self.wait("they ran", || s.ran() == 2 * n)?;
                self.lives_on(cpu)?;
            }
            Ok(())
        })
    }

    fn a_panicking_predicate_has_queued_nothing(&self) -> Check {
        let ran = AtomicU32::new(0);
        let last = self.online().last();
        let wanted = |cpu| {
            assert!(Some(cpu) != last, "on purpose: 9");
            true
        };
        let count = |_| {
            // ORDERING: Relaxed — it must never run.
            ran.fetch_add(1, Ordering::Relaxed);
        };
        let cond = || {
            self.smp()
                .on_each_cpu_cond(wanted, count)
                .map_err(|r| r.error)
        };
        self.panics(cond)?;
        self.smp()
            .kick_all_cpus_sync()
            .or_fail("kick_all_cpus_sync")?;
        ensure_eq!(ran.load(Ordering::Relaxed), 0, "functions that ran");
        self.smp()
            .on_each_cpu(count)
            .or_fail("on_each_cpu after it")
            .map(|_| ())
    }

    fn a_tasks_panic_reaches_the_caller(&self) -> Check {
        for cpu in self.others().iter().take(4) {
            let fail = || -> u64 { panic!("on purpose: {}", 3) };
            let got = self.panics(|| self.smp().run_on_cpu(cpu, fail).map_err(|r| r.error))?;
            ensure_eq!(got, Some(3), "the panic that came from `run_on_cpu`");
            self.lives_on(cpu)?;
        }
        Ok(())
    }

    fn a_panic_in_a_drop_is_contained(&self) -> Check {
        for cpu in self.online().iter().take(4) {
            let mine = Mine;
            // The drop is part of the function, so its panic comes here.
            self.panics(|| {
                self.smp()
                    .call(cpu, move || drop(mine))
                    .map_err(|r| r.error)
            })?;
            self.lives_on(cpu)?;
        }
        Ok(())
    }
}
