//! Boot parameters, and the limits that the running system got from them.

use smpcall::{BootParams, CpuMask, Reason};

use super::case_list;
use crate::check::{Check, ensure, ensure_eq};
use crate::cx::Cx;
use crate::lab::Lab;

case_list! {
    1 Nothing boot_parameters_are_decimal_and_the_last_one_wins,
    1 Nothing boot_parameters_with_bad_values_are_named,
    1 Nothing nr_cpus_above_the_builds_maximum_is_clamped_with_a_notice,
    1 Nothing online_is_within_present_is_within_possible,
}

/// `maxcpus` without a limit.
const ALL: u32 = u32::MAX;

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    fn boot_parameters_are_decimal_and_the_last_one_wins(&self) -> Check {
        let wanted = [
            ("", ALL, 64),
            ("quiet root=/dev/vda maxcpusx=3 xmaxcpus=3 nosmpx", ALL, 64),
            ("maxcpus=2", 2, 64),
            ("nr_cpus=4", ALL, 4),
            ("nosmp", 0, 64),
            ("maxcpus=0", 0, 64),
            ("maxcpus=1 maxcpus=3", 3, 64),
            ("nosmp maxcpus=3", 3, 64),
            ("maxcpus=3 nosmp", 0, 64),
            ("nr_cpus=9 nr_cpus=5  maxcpus=007", 7, 5),
            ("maxcpus=4294967295", ALL, 64),
            ("nr_cpus=64", ALL, 64),
        ];
        for (line, max_cpus, nr_cpus) in wanted {
            let params = BootParams::parse(line, 64);
            let Ok(params) = params else {
                ensure!(false, "`{line}` was refused");
                continue;
            };
            ensure_eq!(
                (params.max_cpus, params.nr_cpus),
                (max_cpus, nr_cpus),
                "`{line}`"
            );
        }
        Ok(())
    }

    /// os_anchors 5.3, 15.
    fn boot_parameters_with_bad_values_are_named(&self) -> Check {
        let wanted = [
            ("nr_cpus=", "nr_cpus", Reason::Missing),
            ("nr_cpus", "nr_cpus", Reason::Missing),
            ("nr_cpus=0", "nr_cpus", Reason::Zero),
            ("nr_cpus=-1", "nr_cpus", Reason::NotDecimal),
            ("maxcpus=abc", "maxcpus", Reason::NotDecimal),
            ("maxcpus=2junk", "maxcpus", Reason::NotDecimal),
            ("maxcpus=+2", "maxcpus", Reason::NotDecimal),
            ("maxcpus=0x2", "maxcpus", Reason::NotDecimal),
            ("maxcpus=4294967296", "maxcpus", Reason::TooLarge),
            ("maxcpus=99999999999", "maxcpus", Reason::TooLarge),
            (
                "maxcpus=999999999999999999999999",
                "maxcpus",
                Reason::TooLarge,
            ),
            ("nosmp=1", "nosmp", Reason::TakesNoValue),
            ("nosmp=", "nosmp", Reason::TakesNoValue),
            (
                "maxcpus=2 nr_cpus=x maxcpus=3",
                "nr_cpus",
                Reason::NotDecimal,
            ),
        ];
        for (line, name, reason) in wanted {
            let Err(bad) = BootParams::parse(line, 64) else {
                ensure!(false, "`{line}` was accepted");
                continue;
            };
            ensure_eq!((bad.name, bad.reason), (name, reason), "`{line}`");
        }
        Ok(())
    }

    fn nr_cpus_above_the_builds_maximum_is_clamped_with_a_notice(&self) -> Check {
        let Ok(params) = BootParams::parse("nr_cpus=65", 64) else {
            ensure!(false, "nr_cpus=65 was refused");
            return Ok(());
        };
        ensure_eq!(
            (params.nr_cpus, params.clamped_from),
            (64, Some(65)),
            "nr_cpus=65"
        );
        ensure!(params.notice().is_some(), "a clamped nr_cpus has no notice");
        let fits = BootParams::parse("nr_cpus=64", 64)
            .ok()
            .and_then(|p| p.clamped_from);
        ensure_eq!(fits, None, "nr_cpus=64");
        Ok(())
    }

    fn online_is_within_present_is_within_possible(&self) -> Check {
        let smp = self.smp();
        let (online, present) = (self.online(), smp.present_cpus());
        let possible = smp.possible_cpus();
        ensure_eq!(
            online.and_not(&present),
            CpuMask::EMPTY,
            "online and not present"
        );
        ensure_eq!(
            present.and_not(&possible),
            CpuMask::EMPTY,
            "present and not possible"
        );
        let ids = possible.last().map_or(0, |last| last.get() + 1);
        ensure_eq!(smp.nr_cpu_ids(), ids, "nr_cpu_ids");
        ensure_eq!(smp.num_online_cpus(), online.len(), "num_online_cpus");
        Ok(())
    }
}
