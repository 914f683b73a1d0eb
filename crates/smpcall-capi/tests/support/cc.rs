//! Compiles C and C++ programs against the library.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The flags that the header must compile with.
pub(crate) const C99: &[&str] = &["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"];
pub(crate) const CXX17: &[&str] = &["-std=c++17", "-Wall", "-Wextra", "-Werror"];

/// This crate's folder.
pub(crate) fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder where the library is, built as a user builds it but in the tests' own profile.
pub(crate) fn library_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .expect("it is in the target folder");
        let (profile, arguments): (_, &[&str]) = if cfg!(debug_assertions) {
            ("debug", &[])
        } else {
            ("release", &["--release"])
        };
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "smpcall-capi"]);
        build.args(arguments).arg("--target-dir").arg(target);
        let status = build.current_dir(home()).status().expect("cargo runs");
        assert!(status.success(), "the library builds");
        target.join(profile)
    })
}

/// The compiler of a variable, or of a name.
fn tool(variable: &str, name: &str) -> String {
    env::var(variable).unwrap_or_else(|_| name.to_owned())
}

/// Compiles C sources below the crate's folder; answers the program's path.
pub(crate) fn c_program(name: &str, flags: &[&[&str]], sources: &[&str]) -> PathBuf {
    program(&tool("CC", "cc"), name, flags, sources)
}

/// Compiles C++ sources, or C sources as C++.
pub(crate) fn cxx_program(name: &str, flags: &[&[&str]], sources: &[&str]) -> PathBuf {
    program(&tool("CXX", "c++"), name, flags, sources)
}

fn program(compiler: &str, name: &str, flags: &[&[&str]], sources: &[&str]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut command = Command::new(compiler);
    command.args(flags.concat()).arg("-g").arg("-Itests/c");
    command.args(sources).args(["-x", "none"]);
    command.args(pkg_config()).arg("-o").arg(&path);
    let output = output(command.current_dir(home()));
    assert!(
        output.status.success(),
        "{compiler} does not compile {sources:?}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    path
}

/// What pkg-config says of the library, which is where the tests built it.
fn pkg_config() -> Vec<String> {
    let library = format!("--define-variable=libdir={}", library_dir().display());
    let mut command = Command::new(tool("PKG_CONFIG", "pkg-config"));
    command.args([&library, "--cflags", "--libs", "smpcall"]);
    command.env("PKG_CONFIG_PATH", home().join("pkgconfig"));
    let output = output(&mut command);
    assert!(
        output.status.success(),
        "pkg-config: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let flags = String::from_utf8(output.stdout).expect("flags are text");
    flags.split_whitespace().map(str::to_owned).collect()
}

/// Runs a tool to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    let tool = command.get_program().to_string_lossy().into_owned();
    command.output().unwrap_or_else(|error| {
        panic!("cannot run {tool}: {error}; `cargo xtask test` fetches what is missing")
    })
}
