//! `smpcall bench`: calls against the limits of the hardware, and against other ways to do it.
//!
//! Everything runs on the same two pinned threads, the CPUs of one machine, in one process. What
//! is compared takes turns, a block of a millisecond or so each. A hypervisor moves virtual CPUs
//! about within seconds, so the placement is probed between two blocks; a block counts if both
//! probes around it agree, and a ratio has both its numbers from the same placement.
//!
//! | file | holds |
//! |---|---|
//! | `lab.rs` | the two CPUs, and something to run on each |
//! | `placement.rs` | the probe: one line and two lines, to and fro |
//! | `limits.rs` | what the hardware and the kernel can do at best |
//! | `ring.rs` | the ring of `spsc64` |
//! | `ours.rs`, `preempted.rs` | smpcall |
//! | `masks.rs` | interrupts off and on |
//! | `seed.rs` | the seed's own algorithm |
//! | `peers.rs` | channels and pools, with the feature `peers` |
//! | `tally.rs` | the samples by placement, and the rows |
//! | `chart.rs` | the rows as a picture |

#![expect(
    clippy::missing_panics_doc,
    reason = "a wrong answer in the middle of a measurement ends the program, exit code 1"
)]

mod chart;
mod lab;
mod limits;
mod masks;
mod ours;
#[cfg(feature = "peers")]
mod peers;
mod placement;
mod preempted;
mod ring;
mod seed;
mod tally;

use std::time::{Duration, Instant};

use smpcall_hosted::WithoutClosure;

use crate::args::{BenchOptions, Common};
use crate::output;
use crate::{Failure, Verdict};

use lab::Lab;
use tally::Tally;

/// After this many times the time that was asked for, rows that have no sample stay empty.
const PATIENCE: u32 = 4;

/// One thing that is measured.
pub(crate) struct Contender {
    /// The row.
    pub(crate) name: &'static str,
    /// `smpcall`, `limit`, or the peer.
    pub(crate) peer: &'static str,
    /// The limit that the row is compared with.
    pub(crate) limit: &'static str,
    /// Runs on the caller's CPU; nanoseconds per operation, of each short run.
    pub(crate) block: Block,
}

/// Measures one block.
type Block = Box<dyn Fn(&Lab) -> Vec<f64> + Send + Sync>;

impl Contender {
    /// A contender.
    pub(crate) fn new(
        name: &'static str,
        peer: &'static str,
        limit: &'static str,
        block: impl Fn(&Lab) -> Vec<f64> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            peer,
            limit,
            block: Box::new(block),
        }
    }
}

/// Measures and shows.
pub(crate) fn run(common: &Common, options: &BenchOptions) -> Verdict {
    options.pictures.check()?;
    let lab = Lab::boot(common.cpus.as_ref())?;
    let contenders = contenders(&lab, options.only.as_deref())?;
    let time = Duration::from_secs_f64(options.seconds);
    let tally = lab
        .machine
        .run_on_cpu(lab.caller, || measure(&lab, &contenders, time))
        .without_closure()?;
    let rows = tally.rows(&contenders);
    output::rows(common.format(), &rows)?;
    if common.format() == output::Format::Human {
        tally.show(&lab, &rows)?;
    }
    if options.pictures.any() {
        options.pictures.write(&chart::draw(&rows))?;
    }
    let missing = tally.missing(&contenders);
    for contender in &missing {
        eprintln!(
            "smpcall: no sample of {} ({}): the placement changed around every block",
            contender.name, contender.peer
        );
    }
    Ok(missing.is_empty())
}

/// What takes turns.
fn contenders(lab: &Lab, only: Option<&str>) -> Result<Vec<Contender>, Failure> {
    let mut all = limits::all();
    all.extend(ours::all());
    all.extend(preempted::all(lab)?);
    all.extend(masks::all());
    all.extend(seed::all());
    #[cfg(feature = "peers")]
    all.extend(peers::all(lab)?);
    let Some(text) = only else {
        return Ok(all);
    };
    let wanted = |contender: &Contender| contender.name.contains(text);
    let limits: Vec<_> = all.iter().filter(|c| wanted(c)).map(|c| c.limit).collect();
    all.retain(|contender| wanted(contender) || limits.contains(&contender.name));
    if all.is_empty() && !placement::LIMITS.iter().any(|limit| limit.contains(text)) {
        return Err(Failure::Usage(format!(
            "--only: no row's name contains `{text}`"
        )));
    }
    Ok(all)
}

/// On the caller's CPU: probe, block, probe, block, and so on until the time is up.
fn measure(lab: &Lab, contenders: &[Contender], time: Duration) -> Tally {
    let start = Instant::now();
    let bar = output::progress(time.as_millis() as u64, "measuring");
    let mut tally = Tally::new(contenders.len());
    let mut before = placement::probe(lab);
    loop {
        for (index, contender) in contenders.iter().enumerate() {
            let samples = (contender.block)(lab);
            let after = placement::probe(lab);
            tally.take(index, &before, &after, samples);
            before = after;
        }
        if contenders.is_empty() {
            let after = placement::probe(lab);
            tally.take_probe(&before, &after);
            before = after;
        }
        let spent = start.elapsed();
        bar.set_position(spent.min(time).as_millis() as u64);
        if spent > time && (tally.missing(contenders).is_empty() || spent > time * PATIENCE) {
            break;
        }
    }
    bar.finish_and_clear();
    tally
}
