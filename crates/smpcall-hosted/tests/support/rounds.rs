//! Many rounds on an idle computer, fewer on a busy one.

use std::time::{Duration, Instant};

/// Enough for the others to be had by chance as well.
const AT_LEAST: u64 = 20;
/// After this no further round begins.
const TIME: Duration = Duration::from_secs(2);

/// The numbers from 0 to `most`, but only as many as there is time for.
pub(crate) fn rounds(most: u64) -> impl Iterator<Item = u64> {
    let start = Instant::now();
    (0..most).take_while(move |&round| round < AT_LEAST || start.elapsed() < TIME)
}
