//! The three architectures, as the host sees them: one table.

use std::path::PathBuf;

/// A processor architecture that the kernel image runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arch {
    /// 64-bit PC.
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    #[value(name = "aarch64")]
    Aarch64,
    /// 64-bit RISC-V.
    #[value(name = "riscv64")]
    Riscv64,
}

impl Arch {
    /// All of them, in the order in which they are tested.
    pub(crate) const ALL: [Arch; 3] = [Arch::X86_64, Arch::Aarch64, Arch::Riscv64];

    /// The name on command lines and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
            Arch::Riscv64 => "riscv64",
        }
    }

    /// The compiler's target.
    ///
    /// Trap entries save no floating-point or vector registers, so the code must use none. The
    /// x86_64 target is soft-float; on aarch64 the plain target would copy through vector
    /// registers; on riscv64 the compiler touches floating-point registers only for floats.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64-unknown-none",
            Arch::Aarch64 => "aarch64-unknown-none-softfloat",
            Arch::Riscv64 => "riscv64gc-unknown-none-elf",
        }
    }

    /// Compiler flags for the image: linked at a fixed address below 2 GiB on x86_64, whose
    /// target would otherwise make a position-independent executable.
    pub(crate) fn rustflags(self) -> &'static str {
        match self {
            Arch::X86_64 => "-Crelocation-model=static -Ccode-model=small",
            Arch::Aarch64 | Arch::Riscv64 => "",
        }
    }

    /// Where cargo builds for this architecture: one folder each, so that none waits for another.
    pub(crate) fn target_dir(self) -> PathBuf {
        crate::workspace_root()
            .join("target/metal")
            .join(self.name())
    }
}
