//! Calls to one CPU: single, any, and with a descriptor; waited for and posted.

use std::pin::pin;

use serde_json::{Value, json};
use smpcall_hosted::{CpuMask, Csd};

use super::witness::note;
use super::{Plan, Stage};

/// Makes them.
pub(super) fn make(stage: &mut Stage<'_>) {
    single(stage);
    single_on_itself(stage);
    descriptor(stage);
    any(stage);
    any_posted(stage);
}

const SINGLE: &str = "smp_call_function_single";
const DESCRIPTOR: &str = "__smp_call_function_single";
const ANY: &str = "smp_call_function_any";

fn single(stage: &mut Stage<'_>) {
    let there = stage.there;
    let plan = Plan {
        seed_name: SINGLE,
        name: "call",
        what: format!("waited, {}, borrows", stage.whither()),
        cpus: CpuMask::of(there),
        result: json!(42),
    };
    let factors = [6, 7];
    stage.call(plan, |machine| {
        let answer = machine.call(there, || {
            note();
            factors[0] * factors[1]
        });
        answer.map(Value::from).map_err(|error| error.to_string())
    });
    let plan = Plan {
        seed_name: SINGLE,
        name: "post",
        what: format!("posted, {}", stage.whither()),
        cpus: CpuMask::of(there),
        result: json!("posted"),
    };
    stage.call(plan, |machine| {
        machine
            .post(there, note)
            .map(|()| json!("posted"))
            .map_err(|error| error.to_string())
    });
}

fn single_on_itself(stage: &mut Stage<'_>) {
    if stage.alone() {
        return;
    }
    let here = stage.here;
    let plan = Plan {
        seed_name: SINGLE,
        name: "call",
        what: "waited, itself: inline".into(),
        cpus: CpuMask::of(here),
        result: json!("inline"),
    };
    stage.call(plan, |machine| {
        let answer = machine.call(here, || {
            note();
            "inline"
        });
        answer.map(Value::from).map_err(|error| error.to_string())
    });
}

fn descriptor(stage: &mut Stage<'_>) {
    let there = stage.there;
    let plan = Plan {
        seed_name: DESCRIPTOR,
        name: "call_csd",
        what: "waited, own descriptor".into(),
        cpus: CpuMask::of(there),
        result: json!("free again"),
    };
    let csd = Csd::new(note as fn());
    stage.call(plan, |machine| {
        machine
            .call_csd(there, &csd)
            .map_err(|error| error.to_string())?;
        Ok(json!(if csd.is_queued() {
            "still queued"
        } else {
            "free again"
        }))
    });
    let plan = Plan {
        seed_name: DESCRIPTOR,
        name: "post_csd",
        what: "posted, own descriptor".into(),
        cpus: CpuMask::of(there),
        result: json!("posted"),
    };
    let csd = pin!(Csd::new(note as fn()));
    stage.call(plan, |machine| {
        let posted = machine.post_csd(there, csd.as_ref());
        posted
            .map(|()| json!("posted"))
            .map_err(|error| error.to_string())
    });
}

fn any(stage: &mut Stage<'_>) {
    let (here, others) = (stage.here, stage.others());
    let plan = Plan {
        seed_name: ANY,
        name: "call_any",
        what: "waited, of all: itself".into(),
        cpus: CpuMask::of(here),
        result: json!(here.get()),
    };
    let online = stage.online;
    stage.call(plan, |machine| {
        let ran = machine.call_any(&online, note);
        ran.map(|(cpu, ())| json!(cpu.get()))
            .map_err(|error| error.to_string())
    });
    if stage.alone() {
        return;
    }
    let nearest = nearest(stage, &others);
    let plan = Plan {
        seed_name: ANY,
        name: "call_any",
        what: "waited, of the others".into(),
        cpus: CpuMask::of(nearest),
        result: json!(nearest.get()),
    };
    stage.call(plan, |machine| {
        let ran = machine.call_any(&others, note);
        ran.map(|(cpu, ())| json!(cpu.get()))
            .map_err(|error| error.to_string())
    });
}

fn any_posted(stage: &mut Stage<'_>) {
    let among = if stage.alone() {
        stage.online
    } else {
        stage.others()
    };
    let nearest = nearest(stage, &among);
    let plan = Plan {
        seed_name: ANY,
        name: "post_any",
        what: format!("posted, of CPUs {among}"),
        cpus: CpuMask::of(nearest),
        result: json!(nearest.get()),
    };
    stage.call(plan, |machine| {
        let cpu = machine.post_any(&among, note);
        cpu.map(|cpu| json!(cpu.get()))
            .map_err(|error| error.to_string())
    });
}

/// The CPU that `any` has to choose: found here by the rule, not by the library.
fn nearest(stage: &Stage<'_>, among: &CpuMask) -> smpcall_hosted::CpuId {
    use smpcall_hosted::Platform;
    let platform = stage.machine.platform();
    let node = platform.node_of(stage.here);
    let near = among.iter().find(|&cpu| platform.node_of(cpu) == node);
    near.or(among.first()).unwrap_or(stage.here)
}
