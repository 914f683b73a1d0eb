//! How a thread waits for an answer: a pause, looks, pauses between looks, and at last without the processor.

use crate::local;
use crate::panics::fatal;
use crate::platform::Hosted;

/// Turns of a wait before the processor is given away.
const SPINS_BEFORE_YIELD: u32 = 10_000;
/// The same with more CPUs than the computer has.
const SPINS_BEFORE_YIELD_SHARED: u32 = 50;
/// The pause instructions, about 20 ns each on the machines that were measured, between sending something and
/// looking for the answer. A look while the other side has the line and works takes the line away
/// from it, for two more transfers; so nobody looks before the line can have been there and back, and then not too
/// often. Near, with one line to and fro at 53 ns: 104 ns a call without these and the pause after a call, 75 with
/// the latter alone, 66 with all.
const PAUSES_BEFORE_LOOKS: u32 = 2;
/// Turns of a wait with a pause each, together a microsecond: longer than a line's way between the farthest CPUs and
/// back. The grace in which a target that looks by itself is not rung for (256 turns) is not over before.
const PAUSED_TURNS: u32 = 48;
/// Turns of a wait until there is a pause in each again: the answer takes its time.
const SPINS_BEFORE_PAUSE: u32 = 1_000;

impl Hosted {
    /// One turn of a wait, after a look that found no answer.
    #[inline]
    pub(crate) fn relax_in_turn(&self, spins: u32) {
        if spins <= PAUSED_TURNS {
            let pauses = if spins == 0 { PAUSES_BEFORE_LOOKS } else { 1 };
            (0..pauses).for_each(|_| std::hint::spin_loop());
        } else if spins >= SPINS_BEFORE_PAUSE || self.oversubscribed {
            self.relax_longer(spins);
        }
    }

    /// The later turns of a wait: the pause instruction, then giving the processor away.
    ///
    /// A thread that waits here and is a CPU of another machine takes that machine's calls between
    /// its turns, so that two machines may call each other.
    #[cold]
    fn relax_longer(&self, spins: u32) {
        self.check_process();
        if let Some(own) = local::elsewhere(self).and_then(Self::own_instance) {
            own.smp.poll();
        }
        let limit = if self.oversubscribed {
            SPINS_BEFORE_YIELD_SHARED
        } else {
            SPINS_BEFORE_YIELD
        };
        if spins < limit {
            std::hint::spin_loop();
        } else {
            rustix::thread::sched_yield();
        }
    }

    /// A wait in a forked child would have no end: nobody is there who could answer.
    pub(crate) fn check_process(&self) {
        if self.is_forked() {
            fatal(format_args!(
                "a process that was forked without exec waits for a CPU whose thread its parent has: \
                 exec in the child, or boot a machine there"
            ));
        }
    }
}
