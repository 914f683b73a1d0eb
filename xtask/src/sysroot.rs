//! The compiler for bare metal: the only file that knows where `core` comes from.
//!
//! Where the active compiler can build a target (`rustup target add` was possible), it is used as
//! it is. Elsewhere `core` and `alloc` are built from source, by a compiler that has its sources
//! beside it: the active one if it has the `rust-src` component, else Debian's `rustc-web` with
//! `rust-web-src`, unpacked below `target/tools`. The linker is LLVM's in all cases.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::{self, Bundle};
use crate::arch::Arch;

/// Debian's newest compiler, kept current in stable releases for the sake of web browsers.
const RUSTC_WEB: Bundle = Bundle {
    name: "rustc-web",
    packages: &["rustc-web", "rust-web-src", "libstd-rust-web-dev"],
    backports: false,
};

/// LLVM's linker, for a compiler that came without `rust-lld`.
const LLD: Bundle = Bundle {
    name: "lld",
    packages: &["lld"],
    backports: false,
};

/// The oldest compiler release that builds the workspace.
const OLDEST_MINOR: u32 = 95;

/// How an architecture's images are compiled.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    /// The compiler to name in `RUSTC`; `None` is the active one.
    rustc: Option<PathBuf>,
    /// Whether `core` and `alloc` are built from source.
    build_std: bool,
    /// The linker; `None` is the target's default, `rust-lld` of the compiler in use.
    linker: Option<PathBuf>,
}

impl Toolchain {
    /// Finds what builds `arch`, fetching what is missing.
    pub(crate) fn find(arch: Arch) -> Result<Toolchain> {
        let target = arch.target();
        let active = PathBuf::from(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        if has_target(&active, target)? {
            return Ok(Toolchain {
                rustc: None,
                build_std: false,
                linker: None,
            });
        }
        let linker = Some(find_linker(&active)?);
        if has_sources(&active)? {
            return Ok(Toolchain {
                rustc: None,
                build_std: true,
                linker,
            });
        }
        let home = apt::fetch(RUSTC_WEB).with_context(|| {
            format!("the compiler cannot build {target}; `rustup target add {target}` would do")
        })?;
        let rustc = apt::wrapper(&home, "rustc", &[], &[])?;
        apt::wrapper(&home, "rustdoc", &[], &[])?;
        if !has_sources(&rustc)? {
            bail!("{} has no library sources beside it", rustc.display());
        }
        let minor = minor_version(&rustc)?;
        if minor < OLDEST_MINOR {
            bail!("rustc-web here is 1.{minor}, 1.{OLDEST_MINOR} or newer is needed");
        }
        Ok(Toolchain {
            rustc: Some(rustc),
            build_std: true,
            linker,
        })
    }

    /// A `cargo` command set up for `arch`, in that architecture's own target folder.
    pub(crate) fn cargo(&self, arch: Arch, subcommand: &str) -> Command {
        let target = arch.target();
        let variable = target.to_uppercase().replace('-', "_");
        let mut command = Command::new(crate::cargo_program());
        command
            .arg(subcommand)
            .args(["--target", target, "--profile", "metal"]);
        command.current_dir(crate::workspace_root());
        command.env("CARGO_TARGET_DIR", arch.target_dir());
        command.env(
            format!("CARGO_TARGET_{variable}_RUSTFLAGS"),
            arch.rustflags(),
        );
        // Flags in the environment would replace the architecture's.
        command
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        if self.build_std {
            command.args(["-Zbuild-std=core,alloc"]);
            command.args(["-Zbuild-std-features=compiler-builtins-mem"]);
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        if let Some(rustc) = &self.rustc {
            command.env("RUSTC", rustc).env_remove("RUSTC_WRAPPER");
            // Beside it: one of another version could not read what it made.
            command.env("RUSTDOC", rustc.with_file_name("rustdoc"));
            // What the compiler says of its own library is for who maintains that.
            command.env("CARGO_FUTURE_INCOMPAT_REPORT_FREQUENCY", "never");
        }
        if let Some(linker) = &self.linker {
            command.env(format!("CARGO_TARGET_{variable}_LINKER"), linker);
        }
        command
    }

    /// One line for people.
    pub(crate) fn describe(&self) -> String {
        let rustc = self
            .rustc
            .as_ref()
            .map_or("rustc".into(), |path| path.display().to_string());
        let core = if self.build_std {
            "core from source"
        } else {
            "core as installed"
        };
        let linker = self.linker.as_ref().map(|path| path.display().to_string());
        format!(
            "{rustc}, {core}, linker {}",
            linker.as_deref().unwrap_or("rust-lld")
        )
    }
}

/// Whether the compiler has a built `core` for the target.
fn has_target(rustc: &Path, target: &str) -> Result<bool> {
    let dir = apt::run(Command::new(rustc).args(["--print", "target-libdir", "--target", target]));
    // A compiler that does not know the target's name says so by failing.
    let Ok(dir) = dir else { return Ok(false) };
    let entries = std::fs::read_dir(dir.trim()).into_iter().flatten();
    Ok(entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-")))
}

/// Whether the compiler has the library's sources beside it.
fn has_sources(rustc: &Path) -> Result<bool> {
    let library = sysroot(rustc)?.join("lib/rustlib/src/rust/library");
    Ok(library.join("Cargo.lock").is_file() && library.join("core/src/lib.rs").is_file())
}

/// The compiler's installation folder.
fn sysroot(rustc: &Path) -> Result<PathBuf> {
    Ok(apt::run(Command::new(rustc).args(["--print", "sysroot"]))?
        .trim()
        .into())
}

/// The 95 of `rustc 1.95.0`.
fn minor_version(rustc: &Path) -> Result<u32> {
    let version = apt::run(Command::new(rustc).arg("--version"))?;
    let minor = version
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse().ok());
    minor.with_context(|| format!("cannot read the version in {version:?}"))
}

/// `rust-lld` of the active compiler, else the system's `ld.lld`, else Debian's, fetched.
fn find_linker(rustc: &Path) -> Result<PathBuf> {
    let host_libs = apt::run(Command::new(rustc).args(["--print", "target-libdir"]))?;
    let bundled = Path::new(host_libs.trim())
        .with_file_name("bin")
        .join("rust-lld");
    if bundled.is_file() {
        return Ok(bundled);
    }
    if let Some(found) = crate::find_program("ld.lld") {
        return Ok(found);
    }
    let home = apt::fetch(LLD).context("no rust-lld beside the compiler and no ld.lld")?;
    apt::wrapper(&home, "ld.lld", &[], &[])
}
