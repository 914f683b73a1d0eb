//! The step `doc`: the documentation builds without a warning, dead links inside it among them.
//!
//! On the host the bare-metal library is empty, so its pages are made for one of its own targets.

use anyhow::Result;

use crate::arch::Arch::X86_64;
use crate::sysroot::Toolchain;
use crate::test::{Counts, cargo};

/// Builds both; what is made is what `cargo xtask api` reads.
pub(crate) fn check() -> Result<Counts> {
    let host = cargo("doc --workspace --no-deps --exclude smpcall-kernel")
        .env("RUSTDOCFLAGS", "-D warnings")
        .status()?;
    let mut counts = Counts::from(host.success());
    let metal = Toolchain::find(X86_64)?
        .cargo(X86_64, "doc")
        .args(["--no-deps", "--package", "smpcall-metal", "--all-features"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .status()?;
    counts.add(metal.success().into());
    Ok(counts)
}
