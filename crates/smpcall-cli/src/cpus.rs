//! `smpcall cpus`: the CPUs of the machine, where each is pinned, and how those hang together.

use serde_json::{Value, json};
use smpcall_hosted::{CpuId, CpuState, HostCache, HostCpus, Machine, Topology};

use crate::Verdict;
use crate::args::Common;
use crate::host;
use crate::output::{self, Format};

/// Boots the machine and shows it.
pub(crate) fn run(common: &Common) -> Verdict {
    let machine = host::boot(common.cpus.as_ref())?;
    let rows: Vec<Value> = machine
        .present_cpus()
        .iter()
        .map(|cpu| row(&machine, cpu))
        .collect();
    output::rows(common.format(), &rows)?;
    if common.format() == Format::Human {
        for_people(&machine, &rows)?;
    }
    Ok(true)
}

fn row(machine: &Machine, cpu: CpuId) -> Value {
    let host_cpu = host::host_cpu_of(machine, cpu);
    let host = host_cpu.and_then(|host| Topology::of_this_computer().cpu(host));
    let host = host.cloned().unwrap_or_default();
    let cache = host.last_cache();
    let size = |cache: &HostCache| Some(format!("{}K", cache.size_bytes? / 1024));
    let state = match machine.cpu_state(cpu) {
        CpuState::Online => "online",
        CpuState::Offline => "offline",
        CpuState::ComingUp => "coming up",
        CpuState::GoingDown => "going down",
        _ => "unknown",
    };
    json!({
        "type": "cpu",
        "cpu": cpu.get(),
        "host_cpu": host_cpu,
        "node": host.node,
        "package": host.package,
        "core": host.core,
        "siblings": host.siblings.to_string(),
        "cache_level": cache.map(|cache| cache.level),
        "cache_size": cache.and_then(size),
        "cache_cpus": cache.map(|cache| cache.cpus.to_string()),
        "state": state,
    })
}

fn for_people(machine: &Machine, rows: &[Value]) -> std::io::Result<()> {
    let header = [
        "CPU",
        "pinned to",
        "node",
        "package",
        "core",
        "SMT siblings",
        "last cache",
        "shared by",
        "state",
    ];
    let mut table = output::table(&header, &[0, 1, 2, 3, 4]);
    for row in rows {
        let cache = match (&row["cache_level"], &row["cache_size"]) {
            (Value::Null, _) => String::new(),
            (level, size) => format!("L{level} {}", output::text(size)),
        };
        table.add_row(vec![
            output::text(&row["cpu"]),
            output::text(&row["host_cpu"]),
            output::text(&row["node"]),
            output::text(&row["package"]),
            output::text(&row["core"]),
            output::text(&row["siblings"]),
            cache,
            output::text(&row["cache_cpus"]),
            output::text(&row["state"]),
        ]);
    }
    // Node and package are alike on most computers.
    output::print(table, &[3, 2, 6, 7])?;
    let online = Topology::of_this_computer().online();
    let allowed = HostCpus::allowed()?;
    output::line(format!(
        "The computer has CPUs {online} online; this process may use {}.",
        allowed.mask()
    ))?;
    let shared = host::distinct_host_cpus(machine);
    if shared < rows.len() {
        output::line(format!(
            "{} CPUs share {shared}: they park instead of polling.",
            rows.len()
        ))?;
    }
    Ok(())
}
