//! C and C++ compilers: for the tests of `smpcall-capi` on this computer, and for C on bare metal.
//!
//! Rust brings a linker's driver, `cc`, with it or needs one; a C++ compiler and pkg-config may be
//! missing and are fetched. One clang compiles C for all three architectures: it needs no
//! library, for the sources are freestanding.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::apt::{self, Bundle};
use crate::arch::Arch;

/// A C++ compiler for this computer.
const CXX: Bundle = Bundle {
    name: "cxx",
    packages: &["g++"],
    backports: false,
};

/// Tells how to link with a library.
const PKG_CONFIG: Bundle = Bundle {
    name: "pkg-config",
    packages: &["pkg-config"],
    backports: false,
};

/// A C compiler for every processor.
const CLANG: Bundle = Bundle {
    name: "clang",
    packages: &["clang"],
    backports: false,
};

/// A C kernel's files, in `crates/smpcall-capi/tests/c`.
const KERNEL_SOURCES: [&str; 6] = [
    "kernel_main.c",
    "harness.c",
    "masks.c",
    "calls.c",
    "contexts.c",
    "callers.c",
];

/// The flags of every C file on bare metal; the image's entry points save no vector registers.
const KERNEL_FLAGS: [&str; 10] = [
    "-std=c99",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-pedantic",
    "-O2",
    "-ffreestanding",
    "-nostdlibinc",
    "-fno-pic",
    "-fno-asynchronous-unwind-tables",
];

/// What an architecture adds: its triple, and the code that its entry points expect.
fn arch_flags(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => &[
            "--target=x86_64-unknown-none-elf",
            "-mno-red-zone",
            "-mgeneral-regs-only",
        ],
        Arch::Aarch64 => &[
            "--target=aarch64-unknown-none-elf",
            "-mgeneral-regs-only",
            "-mno-unaligned-access",
        ],
        Arch::Riscv64 => &[
            "--target=riscv64-unknown-none-elf",
            "-march=rv64gc",
            "-mabi=lp64d",
            "-mcmodel=medany",
        ],
    }
}

/// A program of the system, or the one of a bundle under the name that it has there, started with
/// these arguments before the caller's.
fn find(
    names: &[&str],
    bundle: Bundle,
    arguments: impl FnOnce() -> Result<Vec<String>>,
) -> Result<PathBuf> {
    if let Some(program) = names.iter().find_map(|name| crate::find_program(name)) {
        return Ok(program);
    }
    let home = apt::fetch(bundle).with_context(|| format!("no {}", names.join(" and no ")))?;
    let there = |name: &&&str| home.join("usr/bin").join(name).exists();
    let name = names.iter().find(there).with_context(|| {
        let packages = bundle.packages.join(" ");
        format!("the packages {packages} have no {}", names.join(" or "))
    })?;
    apt::wrapper(&home, name, &[], &arguments()?)
}

/// What a fetched C++ compiler needs of the system's C compiler: its headers and start-up files,
/// which it looks for beside itself only.
fn beside_the_c_compiler() -> Result<Vec<String>> {
    let library = apt::run(Command::new("cc").arg("-print-libgcc-file-name"))?;
    let folder = Path::new(library.trim())
        .parent()
        .context("cc has no library")?;
    let folder = folder.display();
    Ok(vec![
        format!("-B{folder}/"),
        "-idirafter".to_owned(),
        format!("{folder}/include"),
    ])
}

/// What the tests of `smpcall-capi` look for in the environment and the system may lack.
pub(crate) fn host_tools() -> Result<[(&'static str, OsString); 2]> {
    let cxx = match std::env::var_os("CXX") {
        Some(chosen) => chosen,
        None => find(&["c++", "g++", "clang++"], CXX, beside_the_c_compiler)?.into(),
    };
    let pkg_config = match std::env::var_os("PKG_CONFIG") {
        Some(chosen) => chosen,
        None => find(&["pkg-config", "pkgconf"], PKG_CONFIG, || Ok(Vec::new()))?.into(),
    };
    Ok([("CXX", cxx), ("PKG_CONFIG", pkg_config)])
}

/// Compiles the C kernel for an architecture; returns its object files.
pub(crate) fn kernel_objects(arch: Arch) -> Result<Vec<PathBuf>> {
    let clang = find(&["clang"], CLANG, || Ok(Vec::new()))?;
    let capi = crate::workspace_root().join("crates/smpcall-capi");
    let to = arch.target_dir().join("c");
    std::fs::create_dir_all(&to)?;
    let compile = |source: &&str| compile(&clang, arch, &capi, &to, source);
    KERNEL_SOURCES.iter().map(compile).collect()
}

fn compile(clang: &Path, arch: Arch, capi: &Path, to: &Path, source: &str) -> Result<PathBuf> {
    let object = to.join(source).with_extension("o");
    let mut command = Command::new(clang);
    command.args(arch_flags(arch)).args(KERNEL_FLAGS);
    command.arg("-I").arg(capi.join("include"));
    command.arg("-c").arg(capi.join("tests/c").join(source));
    command.arg("-o").arg(&object);
    let status = command.status().context("cannot run clang")?;
    ensure!(
        status.success(),
        "{source} does not compile for {}",
        arch.name()
    );
    Ok(object)
}
