//! Calls to many CPUs: a mask, the others, each, those that match; waited for and posted.
//!
//! The waited forms add up the ids of the CPUs that they are told they run on, into a number on the
//! caller's stack; the posted ones answer the mask that will run.

use std::fmt::Display;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use smpcall_hosted::{CpuId, CpuMask, Machine};

use super::witness::{WITNESS, note};
use super::{Plan, Stage};

/// Makes them.
pub(super) fn make(stage: &mut Stage<'_>) {
    without_itself(stage);
    with_itself(stage);
    kick(stage);
}

fn without_itself(stage: &mut Stage<'_>) {
    let others = stage.others();
    let whom = "a mask of others";
    let (seed, wait, post) = ("smp_call_function_many", "call_many", "post_many");
    waited(stage, seed, wait, whom, others, |machine, f| {
        text(machine.call_many(&others, f))
    });
    posted(stage, seed, post, whom, others, |machine| {
        text(machine.post_many(&others, |_| note()))
    });
    let whom = "all but itself";
    let (seed, wait, post) = ("smp_call_function", "call_others", "post_others");
    waited(stage, seed, wait, whom, others, |machine, f| {
        text(machine.call_others(f))
    });
    posted(stage, seed, post, whom, others, |machine| {
        text(machine.post_others(|_| note()))
    });
}

fn with_itself(stage: &mut Stage<'_>) {
    let online = stage.online;
    let half: CpuMask = online.iter().step_by(2).collect();
    let whom = "all";
    let (seed, wait, post) = ("on_each_cpu", "on_each_cpu", "post_each");
    waited(stage, seed, wait, whom, online, |machine, f| {
        text(machine.on_each_cpu(f))
    });
    posted(stage, seed, post, whom, online, |machine| {
        text(machine.post_each(|_| note()))
    });
    let whom = "a mask with itself";
    let (seed, wait, post) = ("on_each_cpu_mask", "on_each_cpu_mask", "post_each_mask");
    waited(stage, seed, wait, whom, half, |machine, f| {
        text(machine.on_each_cpu_mask(&half, f))
    });
    posted(stage, seed, post, whom, half, |machine| {
        text(machine.post_each_mask(&half, |_| note()))
    });
    let whom = "every second CPU";
    let (seed, wait, post) = ("on_each_cpu_cond", "on_each_cpu_cond", "post_each_cond");
    let second = |cpu| half.contains(cpu);
    waited(stage, seed, wait, whom, half, |machine, f| {
        text(machine.on_each_cpu_cond(second, f))
    });
    posted(stage, seed, post, whom, half, |machine| {
        text(machine.post_each_cond(second, |_| note()))
    });
}

/// The error as text, for the table.
fn text<T>(result: Result<T, impl Display>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// A waited call to many: the sum of the ids has to come out, and the mask to be the wanted one.
fn waited(
    stage: &mut Stage<'_>,
    seed_name: &'static str,
    name: &'static str,
    whom: &str,
    cpus: CpuMask,
    call: impl FnOnce(&Machine, &(dyn Fn(CpuId) + Sync)) -> Result<CpuMask, String>,
) {
    let sum_of = |cpus: &CpuMask| cpus.iter().map(|cpu| cpu.get() + 1).sum::<u32>();
    let plan = Plan {
        seed_name,
        name,
        what: format!("waited, {whom}"),
        cpus,
        result: json!(sum_of(&cpus)),
    };
    stage.call(plan, |machine| {
        let sum = AtomicU32::new(0);
        let ran = call(machine, &|cpu| {
            note();
            // ORDERING: Relaxed — the end of the call orders it before the look below.
            sum.fetch_add(cpu.get() + 1, Ordering::Relaxed);
        })?;
        if ran != cpus {
            return Err(format!("it says that CPUs {ran} ran it"));
        }
        Ok(json!(sum.into_inner()))
    });
}

/// A posted call to many: it has to answer the mask that will run it.
fn posted(
    stage: &mut Stage<'_>,
    seed_name: &'static str,
    name: &'static str,
    whom: &str,
    cpus: CpuMask,
    post: impl FnOnce(&Machine) -> Result<CpuMask, String>,
) {
    let plan = Plan {
        seed_name,
        name,
        what: format!("posted, {whom}"),
        cpus,
        result: mask(&cpus),
    };
    stage.call(plan, |machine| post(machine).map(|ran| mask(&ran)));
}

fn mask(cpus: &CpuMask) -> Value {
    json!(format!("CPUs {cpus}"))
}

/// The kick runs an empty function, so each CPU is asked right after it where it is.
fn kick(stage: &mut Stage<'_>) {
    let others = stage.others();
    let plan = Plan {
        seed_name: "kick_all_cpus_sync",
        name: "kick_all_cpus_sync",
        what: "waited, all but itself".into(),
        cpus: others,
        result: mask(&others),
    };
    stage.call_then(
        plan,
        |machine| text(machine.kick_all_cpus_sync()).map(|ran| mask(&ran)),
        |machine| {
            machine.call_many(&others, |_| WITNESS.note_on(machine.current_cpu()))?;
            Ok(())
        },
    );
}
