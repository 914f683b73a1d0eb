//! A crate outside the workspace that uses this one: what a user writes, built as a user builds it.
//!
//! It is a real `cargo build`, because some refusals come only when code is generated: a checker
//! (`cargo check`, and so `trybuild`) never evaluates the constant that counts a closure's words.
//! The crate stays below the target directory, so that its dependencies are built once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The scratch crate of one test file.
pub(crate) struct Scratch {
    root: PathBuf,
}

impl Scratch {
    /// Lays the crate out; `profile` goes into its manifest.
    pub(crate) fn new(name: &str, profile: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let ours = Path::new(env!("CARGO_MANIFEST_DIR"));
        fs::create_dir_all(root.join("src/bin")).expect("the scratch crate's directory");
        let manifest = format!(
            "[package]\nname = \"scratch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
             [features]\nrefused = []\n\n[dependencies]\nsmpcall-hosted = {{ path = {:?} }}\n\n{profile}\n",
            ours.display().to_string()
        );
        write_if_new(&root.join("Cargo.toml"), &manifest);
        // The workspace's lock file: the versions that are already here, so nothing is downloaded.
        let lock = ours.ancestors().map(|above| above.join("Cargo.lock"));
        let lock = lock.filter(|lock| lock.is_file()).last();
        if let Some(lock) = lock.filter(|_| !root.join("Cargo.lock").is_file()) {
            fs::copy(lock, root.join("Cargo.lock")).expect("the lock file");
        }
        Self { root }
    }

    /// Builds a program of this source.
    pub(crate) fn build(&self, name: &str, source: &str, features: &[&str]) -> Output {
        write_if_new(&self.root.join(format!("src/bin/{name}.rs")), source);
        Command::new(env!("CARGO"))
            .args(["build", "--offline", "--color", "never", "--bin", name])
            .args(features.iter().flat_map(|feature| ["--features", feature]))
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", self.root.join("target"))
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .output()
            .expect("cargo runs")
    }

    /// Runs a program that was built.
    pub(crate) fn run(&self, name: &str) -> Output {
        let program = self.root.join("target/debug").join(name);
        Command::new(program).output().expect("the program runs")
    }
}

/// Leaves a file alone that is as it shall be: its age decides what is built again.
fn write_if_new(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return;
    }
    fs::write(path, text).expect("a file of the scratch crate");
}
