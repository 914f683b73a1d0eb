//! Hands the architecture's link script, which `smpcall-metal` keeps, to the kernel image.
//!
//! See that crate's own build script for why each image needs one.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=../smpcall-metal/src/arch");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
        println!("cargo:rustc-link-arg-bins=-T{root}/../smpcall-metal/src/arch/{arch}/link.ld");
    }
}
