//! Parsers that are too simple to be wrong; the real ones are held to them, here and in `fuzz`.

use std::collections::BTreeSet;

/// CPUs of the masks here.
pub(crate) const CAPACITY: u64 = 128;

/// A decimal number of ASCII digits, however long.
pub(crate) fn decimal(text: &str) -> Option<u128> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u128::MAX))
}

/// The CPUs of a list, by the definition.
pub(crate) fn listed(text: &str) -> Option<BTreeSet<u64>> {
    let mut set = BTreeSet::new();
    let text = text.trim();
    if text.is_empty() {
        return Some(set);
    }
    for part in text.split(',') {
        let mut ends = part.splitn(2, '-').map(decimal);
        let low = ends.next()??;
        let high = ends.next().unwrap_or(Some(low))?;
        if low > high || high >= u128::from(CAPACITY) {
            return None;
        }
        set.extend((low..=high).map(|cpu| cpu as u64));
    }
    Some(set)
}

/// The boot parameters of a command line, by the definition: `maxcpus`, `nr_cpus`, the notice.
pub(crate) fn booted(cmdline: &str) -> Option<(u32, u32, bool)> {
    let (mut max_cpus, mut nr_cpus, mut clamped) = (u32::MAX, CAPACITY as u32, false);
    for token in cmdline.split_ascii_whitespace() {
        let (name, value) = match token.find('=') {
            Some(at) => (&token[..at], &token[at + 1..]),
            None => (token, ""),
        };
        let number = || decimal(value).and_then(|n| u32::try_from(n).ok());
        match name {
            "nosmp" if token == "nosmp" => max_cpus = 0,
            "nosmp" => return None,
            "maxcpus" => max_cpus = number()?,
            "nr_cpus" => {
                let asked = number().filter(|&n| n > 0)?;
                clamped = u64::from(asked) > CAPACITY;
                nr_cpus = asked.min(CAPACITY as u32);
            }
            _ => {}
        }
    }
    Some((max_cpus, nr_cpus, clamped))
}
