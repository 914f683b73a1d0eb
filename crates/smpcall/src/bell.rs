//! The doorbell: one word per CPU that says how it hears of work.
//!
//! Work is published first, in a mailbox, a queue or a request bitmap; then the sender rings. One
//! word answers every question a sender has: is the CPU there, does it look by itself, must it be
//! interrupted or woken, or has somebody rung already. So an IPI is sent only on the way from
//! *nothing pending* to *something pending*, whatever lane the work is in.
//!
//! ```text
//!              (1) open, owner              (2) ring, sender: Kick
//!   CLOSED ───────────────────▶ QUIET ─────────────────────────────▶ RUNG
//!     ▲                         ▲ │ ▲                                │ │ │
//!     │ (7) close, owner        │ │ └───────── (3) take, owner ──────┘ │ │
//!     │   from any state   (5)  │ │ (4) take, owner                    │ │
//!     │               stop      │ ▼          (2) ring, sender: Heard   │ │
//!     │               polling,  POLLING ──────────────────────────────▶┘ │
//!     │               owner       │ (6) park, owner                      │
//!     └────────────────────────   ▼          (2) ring, sender: Wake      │
//!                               PARKED ─────────────────────────────────▶┘
//!
//!   QUIET ──(8) arm, owner──▶ ARMED ──(2) ring, sender: Signal──▶ RUNG
//!     ▲                         │
//!     └──────(3) take, owner────┘
//! ```
//!
//! `PARKED` sleeps in the platform's `park`, on this very word. `ARMED` is for a CPU that sleeps elsewhere, in
//! an event loop of its own, on what the platform signals: the word says which of the two it is, so
//! that a sender makes one system call, and none while the CPU is awake.
//!
//! Only the owner leaves `RUNG`, and only senders enter it. A sender that filled a mailbox of a
//! `POLLING` CPU need not ring at all: edge E8 is what makes that safe. `STREAMING` is `POLLING` with one
//! more promise (9), that it looks at the post rings too: a sender that filled a slot of one does not
//! ring, and makes no fence. For that the owner, when it leaves the state by (5) or (6), makes
//! every CPU execute a fence and looks once more (E43). Edges: E7, E8, E9, E11, E18, E43, E60.
//! Neighbours: `mailbox`, `queue`, `broadcast` publish; `interrupt` takes.

use crate::sync::{AtomicU32, Ordering, fence, full_fence, loom_const_fn, mutant, ord};

/// Offline: nothing is accepted. Zero, so that untouched storage is closed.
pub(crate) const CLOSED: u32 = 0;
/// Online and not looking: a kick is needed.
pub(crate) const QUIET: u32 = 1;
/// Somebody rang, and the owner has not looked since.
pub(crate) const RUNG: u32 = 2;
/// The owner sleeps on this word (a futex on hosted).
pub(crate) const PARKED: u32 = 3;
/// The owner sleeps, or is about to, on what the platform signals (a file descriptor on hosted).
pub(crate) const ARMED: u32 = 4;
/// The owner looks at its mailboxes and at this word again and again.
pub(crate) const POLLING: u32 = 5;
/// As `POLLING`, and at its post rings; before it stops it makes every CPU execute a fence (E43).
pub(crate) const STREAMING: u32 = 6;

/// Does a CPU whose doorbell says this look at its mailboxes by itself?
#[inline]
pub(crate) const fn polls(seen: u32) -> bool {
    seen >= POLLING
}

/// What the sender has to do after it rang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ring {
    /// Nothing: the CPU looks by itself, or somebody else kicked it.
    Heard,
    /// Interrupt it.
    Kick,
    /// Wake it: it sleeps on the word.
    Wake,
    /// Signal it: it is armed.
    Signal,
    /// It is offline: what was published may have to be taken back.
    Closed,
}

/// The word.
#[derive(Debug)]
pub(crate) struct Bell(AtomicU32);

impl Bell {
    loom_const_fn! {
        /// A closed bell.
        pub(crate) fn new() -> Self {
            Self(AtomicU32::new(CLOSED))
        }
    }

    /// Sender, after it published: (2).
    #[inline]
    pub(crate) fn ring(&self) -> Ring {
        // ORDERING: Relaxed — only a first guess for the compare-and-swap.
        self.ring_from(self.0.load(Ordering::Relaxed))
    }

    /// As [`Self::ring`], with a guess at what the word says.
    #[inline]
    pub(crate) fn ring_from(&self, mut seen: u32) -> Ring {
        loop {
            if seen == CLOSED {
                seen = self.confirm_closed();
                if seen == CLOSED {
                    return Ring::Closed;
                }
            }
            if mutant!("e7_rung_ring_skipped") && seen == RUNG {
                return Ring::Heard;
            }
            // ORDERING: Release — publishes what the sender queued; pairs with the Acquire in `take`
            // and `close`. A ring on a rung bell must write too, or the owner could take
            // the first ring and miss the second one's work (E7).
            match self.0.compare_exchange_weak(
                seen,
                RUNG,
                ord!("e7_ring_relaxed", Release),
                Ordering::Relaxed,
            ) {
                Ok(RUNG) if mutant!("bug_kick_to_a_rung_cpu") => return Ring::Kick,
                Ok(QUIET) => return Ring::Kick,
                Ok(PARKED) => return Ring::Wake,
                Ok(ARMED) => return Self::found_armed(),
                Ok(_) => return Ring::Heard,
                Err(now) => seen = now,
            }
        }
    }

    /// Sender that rang an armed bell: what the owner prepared before it armed is visible, the means to
    /// signal it first of all.
    #[cold]
    fn found_armed() -> Ring {
        if !mutant!("e60_signal_relaxed") {
            // ORDERING: Acquire — pairs with the Release in `arm` (E60). A fence, because the
            // exchange before it needs no Acquire in any other state.
            fence(Ordering::Acquire);
        }
        Ring::Signal
    }

    /// What the word says; a hint for [`Self::ring_from`] and for whether to ring at all.
    #[inline]
    pub(crate) fn look(&self) -> u32 {
        // ORDERING: Relaxed — a stale answer is corrected by E8 and E11 or costs one needless ring.
        self.0.load(Ordering::Relaxed)
    }

    /// Sender that saw `CLOSED`: what the word says after a full fence.
    #[cold]
    fn confirm_closed(&self) -> u32 {
        // Orders the publication before the look: an owner that opens after this look will see the
        // publication in its first scan (E11).
        full_fence!("e11_sender_fence");
        // ORDERING: Relaxed — `CLOSED` was read before the fence, which acquires what was
        // published with it: all that the owner ran before it closed has happened (E9).
        self.0.load(Ordering::Relaxed)
    }

    /// Sender that filled a mailbox without ringing and got no answer for a while: rings unless the
    /// owner still polls, in which case it is bound to look at the mailbox again (E8).
    pub(crate) fn ring_unless_polling(&self) -> Ring {
        full_fence!("e8_sender_fence");
        // ORDERING: Relaxed — the fence above orders the publication before this look (E8).
        match self.0.load(Ordering::Relaxed) {
            seen if polls(seen) => Ring::Heard,
            _ => self.ring(),
        }
    }

    /// Is the CPU offline? A hint: the refusal that counts comes from the closed queue or E11.
    #[inline]
    pub(crate) fn looks_closed(&self) -> bool {
        // ORDERING: Relaxed — nothing has been published yet that would have to be ordered.
        self.0.load(Ordering::Relaxed) == CLOSED
    }

    /// Owner: has somebody rung?
    #[inline]
    pub(crate) fn is_rung(&self) -> bool {
        // ORDERING: Relaxed — `take` is what acquires (E7).
        self.0.load(Ordering::Relaxed) == RUNG
    }

    /// Owner, before it drains: (3) and (4). `mode` is `QUIET`, `POLLING`, `STREAMING` or `ARMED`.
    #[inline]
    pub(crate) fn take(&self, mode: u32) {
        // ORDERING: Acquire — sees what every ringer so far has published (E7). A swap, so that a
        // ring that comes later finds `mode` and kicks again.
        self.0.swap(mode, ord!("e7_take_relaxed", Acquire));
    }

    /// Owner that polls: (9).
    #[cold]
    pub(crate) fn start_streaming(&self) {
        // If somebody has rung, the drain's `take` says it.
        // ORDERING: Relaxed — it promises something, and publishes nothing.
        let _ = self
            .0
            .compare_exchange(POLLING, STREAMING, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Owner that polls and wants to do something else: (5), or (6) with `PARKED`. Answers whether
    /// the word was still `polling`, which is `POLLING` or `STREAMING`; otherwise somebody rang and the
    /// owner must drain. After a `true` the owner looks at its mailboxes once more (E8).
    pub(crate) fn stop_polling(&self, polling: u32, mode: u32) -> bool {
        // ORDERING: Acquire on failure is left to the `take` that follows; the fence below orders
        // this store before the owner's last look (E8).
        let stopped = self
            .0
            .compare_exchange(polling, mode, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
        full_fence!("e8_owner_fence");
        stopped
    }

    /// Owner that neither polls nor parks, before it sleeps elsewhere: (8). Answers whether the bell is
    /// armed; otherwise somebody rang, and the owner drains and leaves it `ARMED`. After a `true` the
    /// owner looks at its mailboxes once more: that saves a silent source its grace, after which it
    /// would ring (E8).
    pub(crate) fn arm(&self) -> bool {
        if !mutant!("e60_arm_relaxed") {
            // ORDERING: Release — publishes the means to signal us with whatever arms the bell, the
            // exchange below or the drain's; pairs with `found_armed` (E60).
            fence(Ordering::Release);
        }
        // ORDERING: Relaxed — the fence above; on failure the `take` that follows acquires.
        let armed = self
            .0
            .compare_exchange(QUIET, ARMED, Ordering::Relaxed, Ordering::Relaxed);
        matches!(armed, Ok(_) | Err(ARMED))
    }

    /// Owner: is it still armed? Then nobody has rung since.
    pub(crate) fn is_armed(&self) -> bool {
        // ORDERING: Relaxed — the owner armed it; a ring is acquired by `take` (E7).
        self.0.load(Ordering::Relaxed) == ARMED
    }

    /// Owner: (1). After it the owner scans everything once.
    pub(crate) fn open(&self) {
        // ORDERING: Release — publishes what the CPU did before, as how to interrupt it, to a ringer
        // that acquires it (E70). Queues were opened by their own stores, and E16 publishes the area.
        self.0.store(QUIET, ord!("e70_open_relaxed", Release));
        // Orders the opening before the owner's scan; pairs with `confirm_closed` (E11).
        full_fence!("e11_owner_fence");
    }

    /// Owner: (7). After it the owner drains everything one last time.
    pub(crate) fn close(&self) {
        self.shut();
        // Acquires what every ringer so far has published (E7), and orders the closing before the
        // owner's last look at its mailboxes: a source that rang nobody because it saw `POLLING` is
        // seen (E8). An exchange alone does not order a later load.
        full_fence!("e8_close_fence");
    }

    /// The exchange of [`Self::close`].
    fn shut(&self) {
        // ORDERING: Release — publishes what has been run to those who find the bell closed (E9).
        self.0.swap(CLOSED, ord!("e9_close_relaxed", Release));
    }

    /// The word itself, for the platform's futex (E18).
    #[cfg(not(loom))]
    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.0
    }
}

#[cfg(all(test, loom))]
mod tests;
