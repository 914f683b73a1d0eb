//! `cargo xtask install-capi`: the C library where a C compiler looks for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::apt;
use crate::cc;
use crate::test::Counts;

/// The headers, below the crate's `include`.
const HEADERS: [&str; 4] = [
    "smpcall.h",
    "smpcall/cpumask.h",
    "smpcall/kernel.h",
    "smpcall/platform.h",
];

/// Builds the library and copies it with its headers and its pkg-config file below the prefix;
/// returns what is there now.
pub(crate) fn capi(prefix: &Path) -> Result<Vec<PathBuf>> {
    let root = crate::workspace_root();
    let target = root.join("target");
    let mut cargo = Command::new(crate::cargo_program());
    cargo.args(["build", "--release", "--package", "smpcall-capi"]);
    cargo.arg("--target-dir").arg(&target).current_dir(root);
    ensure!(cargo.status()?.success(), "the library does not build");
    let capi = root.join("crates/smpcall-capi");
    let mut files = vec![
        (
            target.join("release/libsmpcall_capi.a"),
            "lib/libsmpcall_capi.a".to_owned(),
        ),
        (
            capi.join("pkgconfig/smpcall.pc"),
            "lib/pkgconfig/smpcall.pc".to_owned(),
        ),
    ];
    let headers = HEADERS.map(|header| {
        let below = format!("include/{header}");
        (capi.join(&below), below)
    });
    files.extend(headers);
    files
        .iter()
        .map(|(from, below)| copy(from, &prefix.join(below)))
        .collect()
}

fn copy(from: &Path, to: &Path) -> Result<PathBuf> {
    let folder = to.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(to.to_owned())
}

/// Installs into a scratch folder, and compiles and runs an example with what pkg-config says of it.
pub(crate) fn check() -> Result<Counts> {
    let scratch = crate::workspace_root().join("target/tmp/install-capi");
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    capi(&scratch)?;
    let [_, (_, pkg_config)] = cc::host_tools()?;
    let flags = apt::run(
        Command::new(pkg_config)
            .args(["--cflags", "--libs", "smpcall"])
            .env("PKG_CONFIG_PATH", scratch.join("lib/pkgconfig")),
    )?;
    let program = scratch.join("counters");
    let source = crate::workspace_root().join("crates/smpcall-capi/examples/counters.c");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    apt::run(
        Command::new(compiler)
            .arg(source)
            .args(flags.split_whitespace())
            .arg("-o")
            .arg(&program),
    )?;
    let said = apt::run(&mut Command::new(&program))?;
    print!("{said}");
    Ok((said == "6000 events\n").into())
}
