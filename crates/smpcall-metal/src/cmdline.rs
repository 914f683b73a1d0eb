//! The ports' own words on the command line.

/// The value of the last `name=value` word.
pub(crate) fn last_value<'a>(cmdline: &'a str, name: &str) -> Option<&'a str> {
    let mut words = cmdline.split_ascii_whitespace().rev();
    words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

/// The hardware id of `absent=N`: a CPU that is added although it need not exist, to test a start
/// that fails. Not a number: `None`.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn absent(cmdline: &str) -> Option<u64> {
    last_value(cmdline, "absent")?.parse().ok()
}
