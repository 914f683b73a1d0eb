//! Debian packages, downloaded and unpacked below `target/tools` without touching the system.
//!
//! A tool that the system lacks is fetched with an apt configuration of our own: the system's
//! mirrors and keys, but private lists and a private cache, so that neither root nor sudo is
//! needed. apt itself decides which libraries are missing beside the packages asked for. The
//! packages are unpacked with `dpkg-deb -x` into one folder per tool, and a small script starts a
//! program there with the folder's libraries on its path. A folder appears under its final name
//! only when complete; a lock file beside it makes concurrent runs wait for one another.
//!
//! Neighbours: `sysroot` asks for the compiler, `qemu_pkg` for the emulator.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A set of Debian packages that live in one folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bundle {
    /// The folder's name below `target/tools`.
    pub name: &'static str,
    /// What to install; dependencies that the system lacks come along.
    pub packages: &'static [&'static str],
    /// Whether the release's backports are preferred.
    pub backports: bool,
}

/// Where all fetched tools live.
pub(crate) fn tools_dir() -> PathBuf {
    crate::workspace_root().join("target/tools")
}

/// Holds a lock file until dropped.
pub(crate) fn lock(name: &str) -> Result<File> {
    let dir = tools_dir();
    fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!(
            "xtask: waiting for another run that holds {}",
            path.display()
        );
        file.lock()?;
    }
    Ok(file)
}

/// Returns the bundle's folder, fetching it if it is not there yet.
pub(crate) fn fetch(bundle: Bundle) -> Result<PathBuf> {
    let home = tools_dir().join(bundle.name);
    // The folder is complete if it lists what it was made from, and current if that is the same.
    let packages = bundle.packages.join(" ");
    let list = home.join("packages");
    let present = || fs::read_to_string(&list).is_ok_and(|listed| listed == packages);
    if present() {
        return Ok(home);
    }
    let _lock = lock(bundle.name)?;
    if present() {
        return Ok(home);
    }
    eprintln!("xtask: fetching {packages} into {}", home.display());
    let work = tools_dir().join(format!("{}.partial", bundle.name));
    for stale in [&work, &home] {
        if stale.exists() {
            fs::remove_dir_all(stale)?;
        }
    }
    let unpacked = work.join("root");
    fs::create_dir_all(&unpacked)?;
    for archive in download(bundle, &work.join("apt"))? {
        run(Command::new("dpkg-deb")
            .arg("-x")
            .arg(&archive)
            .arg(&unpacked))?;
    }
    fs::write(unpacked.join("packages"), &packages)?;
    fs::rename(&unpacked, &home)?;
    fs::remove_dir_all(&work)?;
    Ok(home)
}

/// Writes `home/bin/<program>`: it starts `home/usr/bin/<program>` with the folder's libraries.
///
/// `variables` are set for it, `arguments` come before the caller's.
pub(crate) fn wrapper(
    home: &Path,
    program: &str,
    variables: &[(&str, &Path)],
    arguments: &[String],
) -> Result<PathBuf> {
    let script_path = home.join("bin").join(program);
    let libraries = library_dirs(home);
    let libraries: Vec<_> = libraries.iter().map(|dir| dir.to_string_lossy()).collect();
    let mut script = format!("#!/bin/sh\nLD_LIBRARY_PATH='{}'", libraries.join(":"));
    script.push_str("${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\nexport LD_LIBRARY_PATH\n");
    for (name, value) in variables {
        script.push_str(&format!("export {name}='{}'\n", value.display()));
    }
    let target = home.join("usr/bin").join(program);
    let prefix: String = arguments
        .iter()
        .map(|argument| format!(" '{argument}'"))
        .collect();
    script.push_str(&format!("exec '{}'{prefix} \"$@\"\n", target.display()));
    if fs::read_to_string(&script_path).is_ok_and(|present| present == script) {
        return Ok(script_path);
    }
    // Written aside and renamed: another run may be executing the present one.
    fs::create_dir_all(home.join("bin"))?;
    let aside = home
        .join("bin")
        .join(format!(".{program}.{}", std::process::id()));
    fs::write(&aside, script)?;
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o755))?;
    fs::rename(&aside, &script_path)?;
    Ok(script_path)
}

/// The library folders of an unpacked bundle for this computer's processor.
pub(crate) fn library_dirs(home: &Path) -> Vec<PathBuf> {
    let multiarch = format!("{}-linux-gnu", std::env::consts::ARCH);
    let dirs = ["usr/lib", "lib"].map(|base| home.join(base).join(&multiarch));
    dirs.into_iter().filter(|dir| dir.is_dir()).collect()
}

/// Runs a command to its end with its output captured; the error has what it said.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Downloads the bundle's packages and the libraries that the system lacks; returns the archives.
fn download(bundle: Bundle, dir: &Path) -> Result<Vec<PathBuf>> {
    let codename = debian_codename().with_context(|| {
        format!(
            "missing on this system, and not fetched: {}",
            bundle.packages.join(" ")
        )
    })?;
    let config = private_apt(dir, &codename, bundle)?;
    let apt = || {
        let mut command = Command::new("apt-get");
        command
            .arg("-c")
            .arg(&config)
            .arg("-q")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run(apt().arg("update"))?;
    let mut install = apt();
    install.args([
        "install",
        "-y",
        "--download-only",
        "--no-install-recommends",
    ]);
    if bundle.backports {
        install.arg("-t").arg(format!("{codename}-backports"));
    }
    run(install.args(bundle.packages))?;
    let mut archives = Vec::new();
    for entry in fs::read_dir(dir.join("cache/archives"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            archives.push(path);
        }
    }
    ensure!(
        !archives.is_empty(),
        "apt-get downloaded nothing for {}",
        bundle.packages.join(" ")
    );
    Ok(archives)
}

/// The release's code name, or an error that says what this system lacks.
fn debian_codename() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("no /etc/os-release")?;
    let field = |name: &str| {
        let line = release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    ensure!(
        field("ID").as_deref() == Some("debian"),
        "packages are fetched on Debian only"
    );
    field("VERSION_CODENAME").context("no VERSION_CODENAME in /etc/os-release")
}

/// Writes a configuration whose lists, cache and sources are all below `dir`.
fn private_apt(dir: &Path, codename: &str, bundle: Bundle) -> Result<PathBuf> {
    for folder in ["lists/partial", "cache/archives/partial", "log"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    let mut sources = debian_sources(codename)?;
    if bundle.backports {
        let suite = format!("{codename}-backports");
        let main = sources.iter().find(|source| source.suite == codename);
        let main = main.with_context(|| format!("no apt source for {codename} main"))?;
        if sources.iter().all(|source| source.suite != suite) {
            sources.push(Source {
                suite,
                ..main.clone()
            });
        }
    }
    let lines: String = sources.iter().map(Source::line).collect();
    fs::write(dir.join("sources.list"), lines)?;
    let config = dir.join("apt.conf");
    let at = dir.display();
    fs::write(
        &config,
        format!(
            r#"Dir::Etc::SourceList "{at}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State::Lists "{at}/lists/";
Dir::State::extended_states "{at}/extended_states";
Dir::Cache "{at}/cache/";
Dir::Cache::Archives "archives/";
Dir::Log "{at}/log/";
Debug::NoLocking "true";
APT::Sandbox::User "";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
"#
        ),
    )?;
    Ok(config)
}

/// One suite of one mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
    signed_by: Option<String>,
}

impl Source {
    /// The line of a `sources.list`.
    fn line(&self) -> String {
        let key = self
            .signed_by
            .as_ref()
            .map(|path| format!("[signed-by={path}] "));
        format!(
            "deb {}{} {} main\n",
            key.unwrap_or_default(),
            self.uri,
            self.suite
        )
    }
}

/// The release's own suites among the system's apt sources.
fn debian_sources(codename: &str) -> Result<Vec<Source>> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    for entry in fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
    {
        files.push(entry?.path());
    }
    let mut sources = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(text.lines().filter_map(parse_line).flatten()),
            Some("sources") => sources.extend(text.split("\n\n").flat_map(parse_stanza)),
            _ => {}
        }
    }
    let suites = ["", "-updates", "-security", "-backports", "/updates"];
    sources.retain(|source| {
        source
            .suite
            .strip_prefix(codename)
            .is_some_and(|rest| suites.contains(&rest))
    });
    ensure!(
        !sources.is_empty(),
        "apt has no sources of Debian {codename}"
    );
    Ok(sources)
}

/// Parses `deb [options] uri suite component...`; `None` for anything else or without `main`.
fn parse_line(line: &str) -> Option<Option<Source>> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    let main = words.any(|component| component == "main");
    let signed_by = options
        .split_whitespace()
        .find_map(|word| word.strip_prefix("signed-by="));
    Some(main.then(|| Source {
        uri: uri.to_owned(),
        suite: suite.to_owned(),
        signed_by: signed_by.map(str::to_owned),
    }))
}

/// Parses one stanza of a deb822 `.sources` file: every URI with every suite.
fn parse_stanza(stanza: &str) -> Vec<Source> {
    let field = |name: &str| {
        let mut lines = stanza.lines().filter(|line| !line.starts_with('#'));
        lines
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or("")
            .trim()
    };
    let has = |name: &str, word: &str| field(name).split_whitespace().any(|found| found == word);
    if !has("Types", "deb") || !has("Components", "main") || field("Enabled") == "no" {
        return Vec::new();
    }
    let key = Some(field("Signed-By"))
        .filter(|key| key.starts_with('/'))
        .map(str::to_owned);
    let mut sources = Vec::new();
    for uri in field("URIs").split_whitespace() {
        for suite in field("Suites").split_whitespace() {
            sources.push(Source {
                uri: uri.to_owned(),
                suite: suite.to_owned(),
                signed_by: key.clone(),
            });
        }
    }
    sources
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::{Source, parse_line, parse_stanza};

    #[test]
    fn one_line_sources_are_read_with_their_key() {
        let source = parse_line("deb [arch=amd64 signed-by=/k.gpg] http://m/debian bookworm main");
        let expected = Source {
            uri: "http://m/debian".into(),
            suite: "bookworm".into(),
            signed_by: Some("/k.gpg".into()),
        };
        assert_eq!(source, Some(Some(expected)));
        assert_eq!(parse_line("# deb http://m/debian bookworm main"), None);
        assert_eq!(
            parse_line("deb http://m/debian bookworm contrib"),
            Some(None)
        );
    }

    #[test]
    fn stanzas_give_every_suite_and_skip_comments() {
        let stanza = "Types: deb\n# URIs: http://x/\nURIs: http://m/debian\n\
                      Suites: bookworm bookworm-updates\nComponents: main";
        let suites: Vec<_> = parse_stanza(stanza)
            .into_iter()
            .map(|source| source.suite)
            .collect();
        assert_eq!(suites, ["bookworm", "bookworm-updates"]);
    }
}
