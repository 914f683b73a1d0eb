//! The operations, their names and their weights.

/// One kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// A look, without a call (Linux: `resched_cpu`).
    Nudge,
    /// A post to one CPU.
    SinglePost,
    /// A post whose function tells that it ran; the caller waits for that.
    SingleRpc,
    /// A waited call to one CPU.
    SingleWait,
    /// A post to many.
    ManyPost,
    /// A waited call to many.
    ManyWait,
    /// A post to all.
    AllPost,
    /// A waited call to all.
    AllWait,
    /// A post to any CPU of a set.
    AnyPost,
    /// A waited call to any CPU of a set.
    AnyWait,
    /// A post to the CPUs that a predicate wants.
    CondPost,
    /// A waited call to the CPUs that a predicate wants.
    CondWait,
    /// A descriptor, waited for.
    CsdWait,
    /// A descriptor posted twice: the second time it may be busy.
    CsdPost,
    /// A descriptor that posts itself again from its function.
    CsdAgain,
    /// A task in the target's ordinary context, told of when it ran.
    TaskRpc,
    /// A waited task; from the runner's own context only, for two CPUs that wait for each other's
    /// ordinary context would both wait for ever.
    TaskWait,
    /// A kick of all CPUs.
    Kick,
    /// A flush of one CPU's posts.
    Flush,
    /// A post that posts onward.
    NestedPost,
    /// A waited call with interrupts off.
    IrqsOffWait,
    /// A post that waits for room.
    PostWait,
    /// A time with interrupts off.
    Masked,
    /// A waited call to the own CPU.
    LocalWait,
    /// A post with a ticket, which is redeemed, or dropped.
    Ticket,
    /// Some CPUs in lock step.
    Rendezvous,
    /// A waited call to many that brings the results of each.
    ManyInto,
    /// A CPU that computes without a look for calls is called, and so is one with interrupts off.
    Preempt,
    /// A thread that is no CPU becomes one that is down, takes and makes calls, and stops being one.
    Attach,
}

/// How many kinds there are.
pub const OPS: usize = 29;

/// All of them.
pub const ALL: [Op; OPS] = [
    Op::Nudge,
    Op::SinglePost,
    Op::SingleRpc,
    Op::SingleWait,
    Op::ManyPost,
    Op::ManyWait,
    Op::AllPost,
    Op::AllWait,
    Op::AnyPost,
    Op::AnyWait,
    Op::CondPost,
    Op::CondWait,
    Op::CsdWait,
    Op::CsdPost,
    Op::CsdAgain,
    Op::TaskRpc,
    Op::TaskWait,
    Op::Kick,
    Op::Flush,
    Op::NestedPost,
    Op::IrqsOffWait,
    Op::PostWait,
    Op::Masked,
    Op::LocalWait,
    Op::Ticket,
    Op::Rendezvous,
    Op::ManyInto,
    Op::Preempt,
    Op::Attach,
];

impl Op {
    /// Its name, in tables and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nudge => "nudge",
            Self::SinglePost => "single_post",
            Self::SingleRpc => "single_rpc",
            Self::SingleWait => "single_wait",
            Self::ManyPost => "many_post",
            Self::ManyWait => "many_wait",
            Self::AllPost => "all_post",
            Self::AllWait => "all_wait",
            Self::AnyPost => "any_post",
            Self::AnyWait => "any_wait",
            Self::CondPost => "cond_post",
            Self::CondWait => "cond_wait",
            Self::CsdWait => "csd_wait",
            Self::CsdPost => "csd_post",
            Self::CsdAgain => "csd_again",
            Self::TaskRpc => "task_rpc",
            Self::TaskWait => "task_wait",
            Self::Kick => "kick",
            Self::Flush => "flush",
            Self::NestedPost => "nested_post",
            Self::IrqsOffWait => "irqs_off_wait",
            Self::PostWait => "post_wait",
            Self::Masked => "masked",
            Self::LocalWait => "local_wait",
            Self::Ticket => "ticket",
            Self::Rendezvous => "rendezvous",
            Self::ManyInto => "many_into",
            Self::Preempt => "preempt",
            Self::Attach => "attach",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        ALL.into_iter().find(|op| op.name() == name)
    }

    /// How often it is chosen among `n` CPUs: for the first eight as scftorture does, so that calls
    /// to one CPU and calls to all move about as many functions.
    pub const fn default_weight(self, n: u32) -> u32 {
        match self {
            Self::Nudge | Self::SinglePost | Self::SingleRpc | Self::SingleWait => 2 * n,
            Self::AnyPost | Self::AnyWait | Self::CsdWait | Self::CsdPost | Self::NestedPost => n,
            Self::IrqsOffWait | Self::PostWait | Self::CsdAgain | Self::TaskRpc | Self::Flush => n,
            Self::LocalWait | Self::Ticket | Self::Preempt | Self::Attach => n,
            Self::ManyPost | Self::ManyWait => 2,
            Self::AllPost | Self::AllWait | Self::CondPost | Self::CondWait => 1,
            Self::TaskWait | Self::Kick | Self::Masked | Self::Rendezvous | Self::ManyInto => 1,
        }
    }
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::{ALL, Op};

    #[test]
    fn every_operation_is_listed_at_its_own_index_and_found_by_name() {
        for (i, op) in ALL.into_iter().enumerate() {
            assert_eq!(op as usize, i);
            assert_eq!(Op::from_name(op.name()), Some(op));
        }
        assert_eq!(Op::from_name("nothing"), None);
    }
}
