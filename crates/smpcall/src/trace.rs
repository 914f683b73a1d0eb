//! What happened when: events in storage of the caller's, and counters by pairs of CPUs.
//!
//! A platform that answers a [`Tracer`] gets an event for each call that is queued, each interrupt
//! that is sent, and each function's entry and exit, in one buffer for each CPU and one for the
//! threads that are none. A platform that answers `None`, the default, pays nothing: the
//! question is asked inline and folds away.
//!
//! ```text
//!             (1) claim, any context           (2) publish
//!   empty ────────────────────────▶ claimed ──────────────▶ there
//! ```
//!
//! A place is written once: a full buffer loses what comes later and counts it, so that every exit
//! that is there has its entry. An interrupt between (1) and (2) claims the next place.
//! Edges: E28 (2→reader). Neighbours: `trace/points.rs` makes the events, `stall` runs the functions.

use core::fmt;
use core::ptr;

use crate::cpu::CpuId;
use crate::stall::NameFn;
use crate::sync::{AtomicPtr, AtomicU64, Ordering, loom_const_fn, ord};

mod points;

pub(crate) use points::note;

/// Where one CPU's events go, and what it ran; the last of a [`Tracer`]'s is for threads that are
/// no CPU.
#[derive(Debug)]
#[repr(align(64))]
pub struct TraceBuffer {
    /// How many places were claimed, beyond the end too.
    claimed: AtomicU64,
    drains: AtomicU64,
    ran: AtomicU64,
}

impl TraceBuffer {
    loom_const_fn! {
        /// Empty.
        pub fn new() -> Self {
            Self {
                claimed: AtomicU64::new(0),
                drains: AtomicU64::new(0),
                ran: AtomicU64::new(0),
            }
        }
    }
}

impl Default for TraceBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// The place of one event.
#[derive(Debug)]
pub struct TraceSlot {
    /// Zero: nothing is there. Otherwise the kind, and the other CPU plus one above it.
    tag: AtomicU64,
    time_ns: AtomicU64,
    /// A [`NameFn`], or null.
    function: AtomicPtr<()>,
    request: AtomicPtr<()>,
}

impl TraceSlot {
    loom_const_fn! {
        /// Empty.
        pub fn new() -> Self {
            Self {
                tag: AtomicU64::new(0),
                time_ns: AtomicU64::new(0),
                function: AtomicPtr::new(ptr::null_mut()),
                request: AtomicPtr::new(ptr::null_mut()),
            }
        }
    }
}

impl Default for TraceSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// What one CPU, or the threads that are none, sent to one CPU.
#[derive(Debug)]
pub struct PairCounters {
    calls: AtomicU64,
    refused: AtomicU64,
    sent: AtomicU64,
}

impl PairCounters {
    loom_const_fn! {
        /// Nothing yet.
        pub fn new() -> Self {
            Self {
                calls: AtomicU64::new(0),
                refused: AtomicU64::new(0),
                sent: AtomicU64::new(0),
            }
        }
    }
}

impl Default for PairCounters {
    fn default() -> Self {
        Self::new()
    }
}

/// A moment of [`PairCounters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairCounts {
    /// Calls that were published for the target; on the CPU itself: that ran inline.
    pub calls: u64,
    /// Those that were taken back, because the target had left.
    pub refused: u64,
    /// Interrupts and wake-ups that were sent to it.
    pub ipis_sent: u64,
}

impl PairCounts {
    /// How many calls needed no interrupt of their own. One that was sent without a call, by
    /// `nudge` or for a stall, counts against it.
    pub fn ipis_avoided(&self) -> u64 {
        self.calls.saturating_sub(self.ipis_sent)
    }

    /// How many calls went with each interrupt; `None` if none was sent.
    pub fn calls_per_ipi(&self) -> Option<u64> {
        self.calls.checked_div(self.ipis_sent)
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceKind {
    /// A call is about to be published for this CPU; for the CPU itself it runs inline.
    Queue(CpuId),
    /// A call was taken back: this CPU had left.
    Refuse(CpuId),
    /// This CPU is interrupted or woken.
    Send(CpuId),
    /// A called function begins.
    Entry,
    /// It has returned or panicked.
    Exit,
}

impl TraceKind {
    fn tag(self) -> u64 {
        let with = |kind: u64, cpu: CpuId| kind | (u64::from(cpu.get()) + 1) << 8;
        match self {
            Self::Queue(cpu) => with(1, cpu),
            Self::Refuse(cpu) => with(2, cpu),
            Self::Send(cpu) => with(3, cpu),
            Self::Entry => 4,
            Self::Exit => 5,
        }
    }

    /// `None`: nothing is there.
    fn of(tag: u64) -> Option<Self> {
        let cpu = CpuId::new(((tag >> 8) as u32).wrapping_sub(1));
        Some(match tag & 0xff {
            1 => Self::Queue(cpu),
            2 => Self::Refuse(cpu),
            3 => Self::Send(cpu),
            4 => Self::Entry,
            5 => Self::Exit,
            _ => return None,
        })
    }
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct TraceEvent {
    /// The platform's clock.
    pub time_ns: u64,
    /// Where it happened; `None` for a thread that is no CPU.
    pub cpu: Option<CpuId>,
    /// What happened.
    pub kind: TraceKind,
    /// The function, where the event has one.
    pub function: Option<&'static str>,
    /// Names the call: its entry on the target has the number that its queueing had. Used again
    /// by later calls; 0 for a function that runs inline.
    pub request: usize,
}

/// Storage for a trace.
///
/// ```
/// use smpcall::{PairCounters, TraceBuffer, TraceSlot, Tracer};
/// // Two CPUs, and the threads that are none; 100 events for each.
/// static BUFFERS: [TraceBuffer; 3] = [const { TraceBuffer::new() }; 3];
/// static SLOTS: [TraceSlot; 300] = [const { TraceSlot::new() }; 300];
/// static PAIRS: [PairCounters; 9] = [const { PairCounters::new() }; 9];
/// let tracer = Tracer::new(&BUFFERS, &SLOTS, &PAIRS);
/// assert_eq!(tracer.events().count(), 0);
/// ```
#[derive(Clone, Copy)]
pub struct Tracer<'a> {
    buffers: &'a [TraceBuffer],
    slots: &'a [TraceSlot],
    pairs: &'a [PairCounters],
}

impl fmt::Debug for Tracer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer")
            .field("cpus", &self.cpus())
            .field("room", &self.room())
            .field("lost", &self.lost())
            .finish()
    }
}

impl<'a> Tracer<'a> {
    /// One buffer for each CPU and one more; the slots are divided evenly among them; a pair
    /// for each two buffers.
    ///
    /// # Panics
    /// If there is no buffer, or the number of pairs is not that of the buffers squared.
    pub const fn new(
        buffers: &'a [TraceBuffer],
        slots: &'a [TraceSlot],
        pairs: &'a [PairCounters],
    ) -> Self {
        assert!(
            !buffers.is_empty() && pairs.len() == buffers.len() * buffers.len(),
            "a trace of n CPUs has n + 1 buffers and as many pairs as that squared"
        );
        Self {
            buffers,
            slots,
            pairs,
        }
    }

    /// How many CPUs it has buffers for.
    pub const fn cpus(&self) -> usize {
        self.buffers.len() - 1
    }

    /// How many events fit for each.
    const fn room(&self) -> usize {
        self.slots.len() / self.buffers.len()
    }

    /// The buffer of a CPU, or of the threads that are none (and of CPUs beyond the storage).
    fn index(&self, cpu: Option<CpuId>) -> usize {
        cpu.map_or(self.cpus(), |cpu| cpu.index().min(self.cpus()))
    }

    /// How many events found their buffer full.
    pub fn lost(&self) -> u64 {
        let beyond = |buffer: &TraceBuffer| {
            // ORDERING: Relaxed — a statistic.
            let claimed = buffer.claimed.load(Ordering::Relaxed);
            claimed.saturating_sub(self.room() as u64)
        };
        self.buffers.iter().map(beyond).sum()
    }

    /// The events of one CPU, or of the threads that are none, in the order in which they happened
    /// there; one that is being written now is left out.
    pub fn events_of(&self, cpu: Option<CpuId>) -> impl Iterator<Item = TraceEvent> + use<'a> {
        let index = self.index(cpu);
        let first = index * self.room();
        let slots = &self.slots[first..first + self.room()];
        slots.iter().filter_map(move |slot| {
            // ORDERING: Acquire — the event was written before its tag (E28).
            let kind = TraceKind::of(slot.tag.load(ord!("e28_read_relaxed", Acquire)))?;
            // ORDERING: Relaxed — ordered by the tag (E28).
            let name = slot.function.load(Ordering::Relaxed);
            // SAFETY: the word is null or a `NameFn` that `record` stored.
            let name =
                (!name.is_null()).then(|| unsafe { core::mem::transmute::<*mut (), NameFn>(name) });
            Some(TraceEvent {
                // ORDERING: Relaxed — ordered by the tag (E28).
                time_ns: slot.time_ns.load(Ordering::Relaxed),
                cpu,
                kind,
                function: name.map(|name| name()),
                // ORDERING: Relaxed — ordered by the tag (E28).
                request: slot.request.load(Ordering::Relaxed).addr(),
            })
        })
    }

    /// All events, by CPU.
    pub fn events(&self) -> impl Iterator<Item = TraceEvent> + use<'a> {
        let this = *self;
        let cpus = (0..self.cpus() as u32).map(|cpu| Some(CpuId::new(cpu)));
        cpus.chain([None]).flat_map(move |cpu| this.events_of(cpu))
    }

    /// What a CPU, or the threads that are none, sent to a CPU.
    pub fn pair(&self, from: Option<CpuId>, to: CpuId) -> PairCounts {
        let pair = self.pair_of(from, to);
        PairCounts {
            // ORDERING: Relaxed — a statistic.
            calls: pair.calls.load(Ordering::Relaxed),
            // ORDERING: Relaxed — a statistic.
            refused: pair.refused.load(Ordering::Relaxed),
            // ORDERING: Relaxed — a statistic.
            ipis_sent: pair.sent.load(Ordering::Relaxed),
        }
    }

    /// How often a CPU looked for calls because it was rung or interrupted.
    pub fn drains(&self, cpu: CpuId) -> u64 {
        // ORDERING: Relaxed — a statistic.
        self.buffers[self.index(Some(cpu))]
            .drains
            .load(Ordering::Relaxed)
    }

    /// How many functions a CPU ran for others and inline.
    pub fn ran(&self, cpu: CpuId) -> u64 {
        // ORDERING: Relaxed — a statistic.
        self.buffers[self.index(Some(cpu))]
            .ran
            .load(Ordering::Relaxed)
    }

    fn pair_of(&self, from: Option<CpuId>, to: CpuId) -> &'a PairCounters {
        &self.pairs[self.index(from) * self.buffers.len() + self.index(Some(to))]
    }

    /// Counts an event and writes it down: (1), (2).
    fn record(
        &self,
        cpu: Option<CpuId>,
        time_ns: u64,
        kind: TraceKind,
        function: Option<NameFn>,
        request: usize,
    ) {
        let index = self.index(cpu);
        let counter = match kind {
            TraceKind::Queue(to) => Some(&self.pair_of(cpu, to).calls),
            TraceKind::Refuse(to) => Some(&self.pair_of(cpu, to).refused),
            TraceKind::Send(to) => Some(&self.pair_of(cpu, to).sent),
            TraceKind::Entry => Some(&self.buffers[index].ran),
            TraceKind::Exit => None,
        };
        // ORDERING: Relaxed — a statistic.
        counter.map(|counter| counter.fetch_add(1, Ordering::Relaxed));
        // ORDERING: Relaxed — the place is ours alone by the addition.
        let place = self.buffers[index].claimed.fetch_add(1, Ordering::Relaxed);
        if place >= self.room() as u64 {
            return;
        }
        let slot = &self.slots[index * self.room() + place as usize];
        // ORDERING: Relaxed — published by the tag (E28).
        slot.time_ns.store(time_ns, Ordering::Relaxed);
        let name = function.map_or(ptr::null_mut(), |name| name as *mut ());
        // ORDERING: Relaxed — published by the tag (E28).
        slot.function.store(name, Ordering::Relaxed);
        // ORDERING: Relaxed — published by the tag (E28).
        slot.request
            .store(ptr::without_provenance_mut(request), Ordering::Relaxed);
        // ORDERING: Release — publishes the event; pairs with the Acquire of `events_of` (E28).
        slot.tag
            .store(kind.tag(), ord!("e28_publish_relaxed", Release));
    }
}

#[cfg(all(test, loom))]
mod tests;
