//! The cases, and how they are run.

use core::fmt::{self, Write};

use crate::check::Check;
use crate::cx::Cx;
use crate::lab::Lab;
use crate::report::Line;

mod callbacks;
mod contexts;
mod crowds;
mod descriptors;
mod kicks;
mod masks;
mod offline;
mod order;
mod own;
mod panics;
mod params;
mod posting;
mod races;
mod results;
mod tasks;
mod tickets;
mod traces;

/// What a case needs of its system, besides CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// CPUs that may be taken down.
    Hotplug,
    /// That, and patience: it waits for one of the library's deadlines.
    SlowHotplug,
    /// CPUs that may be taken down, of no other instance meanwhile.
    HotplugAlone,
    /// Panics that reach the caller.
    Panics,
    /// A tracer whose buffers have room.
    Trace,
    /// Patience: it makes a wait so long that the library reports it.
    Slow,
}

/// A case.
#[derive(Debug)]
pub struct Case<L, const W: usize, const D: usize> {
    /// The behaviour that it checks.
    pub name: &'static str,
    /// How many CPUs must be online.
    pub min_cpus: usize,
    /// What else it needs.
    pub needs: Needs,
    /// The check.
    pub run: fn(&Cx<'_, L, W, D>) -> Check,
}

impl<L, const W: usize, const D: usize> Clone for Case<L, W, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<L, const W: usize, const D: usize> Copy for Case<L, W, D> {}

impl<L: Lab<W, D>, const W: usize, const D: usize> Case<L, W, D> {
    /// Has the system what the case needs?
    pub fn runs_on(&self, lab: &L) -> bool {
        self.fits(lab, lab.smp().num_online_cpus())
    }

    /// Has a system with so many CPUs what the case needs? Does not look at its instance.
    pub fn fits(&self, lab: &L, cpus: usize) -> bool {
        let meets = match self.needs {
            Needs::Nothing => true,
            Needs::Hotplug => lab.may_hotplug(),
            Needs::SlowHotplug => lab.may_hotplug() && lab.may_be_slow(),
            Needs::HotplugAlone => lab.may_hotplug() && lab.is_alone(),
            Needs::Panics => lab.catches_panics(),
            Needs::Trace => lab.is_traced(),
            Needs::Slow => lab.may_be_slow(),
        };
        meets && cpus >= self.min_cpus
    }
}

/// A list of cases: how many CPUs, what else, and the method of [`Cx`] that has the case's name.
macro_rules! case_list {
    ($($min_cpus:literal $needs:ident $name:ident,)*) => {
        /// The cases of this file.
        pub(super) fn cases<L: $crate::Lab<W, D>, const W: usize, const D: usize>()
        -> impl Iterator<Item = $crate::Case<L, W, D>> {
            [$($crate::Case {
                name: stringify!($name),
                min_cpus: $min_cpus,
                needs: $crate::Needs::$needs,
                run: |cx| cx.$name(),
            }),*]
            .into_iter()
        }
    };
}
pub(crate) use case_list;

/// Every case.
pub fn cases<L: Lab<W, D>, const W: usize, const D: usize>() -> impl Iterator<Item = Case<L, W, D>>
{
    // First, while the buffers have room.
    traces::cases()
        .chain(results::cases())
        .chain(contexts::cases())
        .chain(order::cases())
        .chain(own::cases())
        .chain(posting::cases())
        .chain(masks::cases())
        .chain(descriptors::cases())
        .chain(tasks::cases())
        .chain(tickets::cases())
        .chain(kicks::cases())
        .chain(crowds::cases())
        .chain(offline::cases())
        .chain(races::cases())
        .chain(callbacks::cases())
        .chain(params::cases())
        .chain(panics::cases())
}

/// How many cases would run.
pub fn count<L: Lab<W, D>, const W: usize, const D: usize>(lab: &L) -> usize {
    cases::<L, W, D>().filter(|case| case.runs_on(lab)).count()
}

/// Runs one case, and leaves the system as it was: every CPU back online, nothing pending.
///
/// # Errors
/// Why the case failed.
pub fn run_case<L: Lab<W, D>, const W: usize, const D: usize>(
    lab: &L,
    case: &Case<L, W, D>,
) -> Check {
    let cx = Cx::new(lab);
    let before = cx.online();
    let own = (case.run)(&cx);
    let verdict = cx.verdict(own);
    let restored = cx.restore(&before);
    verdict.and(restored)
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    /// Brings back the CPUs that a case took down, and waits until nothing is posted.
    fn restore(&self, before: &smpcall::CpuMask<W>) -> Check {
        use crate::check::OrFail;
        for cpu in &before.and_not(&self.online()) {
            self.smp()
                .cpu_up(cpu)
                .or_fail("a CPU that the case took down")?;
        }
        for cpu in &self.online() {
            self.smp().flush(cpu).or_fail("flush after the case")?;
        }
        crate::check::ensure_eq!(self.online(), *before, "CPUs online after the case");
        Ok(())
    }
}

/// How many cases passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
}

impl Tally {
    /// Did cases run, and none fail?
    pub fn ok(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

/// Runs every case that the system has what is needed for and whose name the filter wants, saying
/// each line of the report to `say`, the tally last. The closing line is the caller's.
pub fn run_all<L: Lab<W, D>, const W: usize, const D: usize>(
    lab: &L,
    mut wanted: impl FnMut(&str) -> bool,
    say: &mut dyn FnMut(Line<'_>),
) -> Tally {
    let mut tally = Tally::default();
    let runs = |case: &Case<L, W, D>| case.runs_on(lab) && wanted(case.name);
    for case in cases::<L, W, D>().filter(runs) {
        say(Line::CaseStarts(case.name));
        match run_case(lab, &case) {
            Ok(()) => {
                tally.passed += 1;
                say(Line::CaseOk(case.name));
            }
            Err(failure) => {
                tally.failed += 1;
                let mut reason = Reason::default();
                // A reason that does not fit is cut off.
                let _ = write!(reason, "{failure}");
                say(Line::CaseFailed(case.name, reason.as_str()));
            }
        }
    }
    let Tally { passed, failed } = tally;
    say(Line::Tally { passed, failed });
    tally
}

/// A failure's text.
struct Reason {
    text: [u8; 192],
    used: usize,
}

impl Default for Reason {
    fn default() -> Self {
        Self {
            text: [0; 192],
            used: 0,
        }
    }
}

impl Reason {
    fn as_str(&self) -> &str {
        str::from_utf8(&self.text[..self.used]).unwrap_or("(not text)")
    }
}

impl Write for Reason {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = self.text.len() - self.used;
        if s.len() > room {
            return Err(fmt::Error);
        }
        self.text[self.used..self.used + s.len()].copy_from_slice(s.as_bytes());
        self.used += s.len();
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use std::{fs, path::Path};

    /// The names in the lists of the case files.
    fn names() -> Vec<String> {
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cases");
        let mut names = Vec::new();
        for file in fs::read_dir(files).expect("the case files") {
            let text = fs::read_to_string(file.expect("a file").path()).expect("text");
            let (_, list) = text.split_once("case_list! {").expect("a list of cases");
            let (list, _) = list.split_once('}').expect("the list ends");
            let last = |line: &str| line.rsplit(' ').next().map(|name| name.replace(',', ""));
            names.extend(
                list.lines()
                    .filter_map(last)
                    .filter(|name| !name.is_empty()),
            );
        }
        names
    }

    #[test]
    fn every_case_has_a_name_of_its_own_and_stands_in_the_table() {
        let mut names = names();
        let n = names.len();
        assert!(n > 100, "only {n} cases were found");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n, "two cases have one name");
        let table = include_str!("../README.md");
        let missing = |name: &&String| !table.contains(&format!("`{name}`"));
        let missing: Vec<_> = names.iter().filter(missing).collect();
        assert!(missing.is_empty(), "not in README.md: {missing:?}");
    }
}
