//! Hands the architecture's link script, which `smpcall-metal` keeps, to the kernel image.
//!
//! See that crate's own build script for why each image needs one. The C image is also linked with
//! the object files that xtask compiled and names in `SMPCALL_CAPI_OBJECTS`.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=../smpcall-metal/src/arch");
    println!("cargo:rerun-if-env-changed=SMPCALL_CAPI_OBJECTS");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
        let objects = env::var_os("SMPCALL_CAPI_OBJECTS").unwrap_or_default();
        for object in env::split_paths(&objects).filter(|path| path.is_file()) {
            let object = object.display();
            println!("cargo:rerun-if-changed={object}");
            println!("cargo:rustc-link-arg-bin=smpcall-kernel-capi={object}");
        }
        println!("cargo:rustc-link-arg-bins=-T{root}/../smpcall-metal/src/arch/{arch}/link.ld");
    }
}
