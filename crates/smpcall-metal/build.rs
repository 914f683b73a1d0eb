//! Hands the architecture's link script to this crate's examples.
//!
//! An image is linked by the package that holds its `main`, so every image has such a build script:
//! `cargo:rustc-link-arg` does not reach across packages. A test would need it as well, but a test
//! needs an operating system, and for those this crate is empty.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=src/arch");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
        println!("cargo:rustc-link-arg-examples=-T{root}/src/arch/{arch}/link.ld");
    }
}
