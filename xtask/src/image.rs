//! Builds the kernel image, or an example of `smpcall-metal`, for one architecture.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::arch::Arch;
use crate::cc;
use crate::sysroot::Toolchain;

/// What is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Image<'a> {
    /// `smpcall-kernel`, which runs the suites.
    Kernel,
    /// The same, with the feature `trace`.
    TracedKernel,
    /// The one whose kernel is in C, with its own cases.
    CKernel,
    /// An example of `smpcall-metal`.
    Example(&'a str),
}

/// Builds it and returns the path of the ELF file.
pub(crate) fn build(arch: Arch, image: Image<'_>) -> Result<PathBuf> {
    let toolchain = Toolchain::find(arch)?;
    let mut cargo = toolchain.cargo(arch, "build");
    let (package, file) = match image {
        Image::Kernel => ("smpcall-kernel", "smpcall-kernel".to_owned()),
        Image::TracedKernel => {
            cargo.args(["--features", "trace", "--bin", "smpcall-kernel"]);
            ("smpcall-kernel", "smpcall-kernel".to_owned())
        }
        Image::CKernel => {
            let objects = std::env::join_paths(cc::kernel_objects(arch)?)?;
            cargo.env("SMPCALL_CAPI_OBJECTS", objects);
            cargo.args(["--features", "capi", "--bin", "smpcall-kernel-capi"]);
            ("smpcall-kernel", "smpcall-kernel-capi".to_owned())
        }
        Image::Example(name) => {
            cargo.args(["--example", name]);
            ("smpcall-metal", format!("examples/{name}"))
        }
    };
    cargo.args(["--package", package]);
    // Standard output carries reports.
    cargo.stdout(std::io::stderr());
    ensure!(
        cargo.status()?.success(),
        "{package} does not build for {}",
        arch.name()
    );
    let dir = arch.target_dir().join(arch.target()).join("metal");
    let built = dir.join(file);
    if image != Image::TracedKernel {
        return Ok(built);
    }
    // Both kernels have one name, and the next build puts the other one there.
    let kept = dir.join("smpcall-kernel-trace");
    std::fs::copy(&built, &kept)?;
    Ok(kept)
}
