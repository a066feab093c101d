//! What a schedule can do to the steps of a member, and which guard it can take out.

use std::time::Duration;

/// What happens to one step. What has no meaning for a step leaves it as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process dies before the step has an effect.
    DiesBefore,
    /// The process dies after the step had its effect.
    DiesAfter,
    /// The process dies, and the group's offsets are deleted.
    DiesWithOffsets,
    /// It has its effect, but no answer comes.
    AnswerLost,
    /// It has no effect, and no answer comes.
    NotDone,
    /// A commit is taken, and a copy of it lands behind the next one, or when the process dies.
    SentTwice,
    /// ClickHouse dies: an insert is stored by half, and no answer comes.
    Half,
    /// An insert is answered and its token kept, but no row is stored.
    OnlyToken,
    /// ClickHouse dies: an insert is stored, its token is not kept, and no answer comes.
    OnlyRows,
    /// An insert arrives now and once more a second before it is too late.
    Twice,
    /// No answer comes, and the insert arrives a second before it is too late.
    Late,
    /// The same, but it is answered as if it were stored.
    OkButLate,
    /// No answer comes, and the insert arrives when it is too late.
    TooLate,
    /// No answer comes; the insert arrives in time, and ClickHouse takes four times the limit to
    /// store it.
    Slow,
    /// The process dies, and its insert arrives a second before it is too late.
    DiesLate,
    /// The process dies, and its insert arrives when it is too late.
    DiesTooLate,
    /// The process dies, and ClickHouse takes four times the limit to store its insert.
    DiesSlow,
    /// ClickHouse's clock is set back by a minute before the step.
    ClockBack,
    /// ClickHouse's clock is set forward by a minute before the step.
    ClockForward,
    /// The replica that is asked dies: no answer comes, and an insert is stored by it alone, out of
    /// reach of the others. It comes back after four times the limit.
    ReplicaDies,
    /// No answer comes from the replica that is asked, as long: an insert has arrived there, and is
    /// stored when the replica goes on.
    ReplicaStandsStill,
}

pub(crate) const FAULTS: [Fault; 19] = [
    Fault::DiesBefore,
    Fault::DiesAfter,
    Fault::DiesWithOffsets,
    Fault::AnswerLost,
    Fault::NotDone,
    Fault::SentTwice,
    Fault::Half,
    Fault::OnlyToken,
    Fault::OnlyRows,
    Fault::Twice,
    Fault::Late,
    Fault::OkButLate,
    Fault::TooLate,
    Fault::Slow,
    Fault::DiesLate,
    Fault::DiesTooLate,
    Fault::DiesSlow,
    Fault::ClockBack,
    Fault::ClockForward,
];

/// What can happen to one replica of several, beside all that can happen to a server.
pub(crate) const REPLICA_FAULTS: [Fault; 2] = [Fault::ReplicaDies, Fault::ReplicaStandsStill];

/// Which guard is taken out, to see that the model notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Without {
    /// Whatever is asked for is said to be there.
    ReadBack,
    /// Counting believes every answer.
    Count,
    /// Tokens do not stop a copy of an insert.
    Tokens,
    /// The server takes an insert however late.
    LateLimit,
    /// What may still land is not waited for.
    Waiting,
    /// What ClickHouse is still storing is not waited for.
    Running,
    /// A successor does not know ClickHouse's time of its predecessor's last insert.
    Clock,
    /// The broker takes the commit of a member that it has replaced.
    Fence,
    /// A live member commits for a partition that was taken away from it.
    Right,
    /// A replica is asked for rows before it has fetched what the others have.
    Sync,
    /// Only the replica that is asked for rows is asked for its clock and what it is storing.
    EachReplica,
    /// A member stays in the group although a commit of its may still be on its way.
    Renewal,
}

/// How the first member loses its partition while it is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// It lives, and was asked to hand the partition back.
    Alive,
    /// The broker took it for dead.
    Dead,
}

/// The first member stops before one of its steps, goes on before one of the second's, and stops
/// again some steps later until the second has finished.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frozen {
    pub(crate) before: usize,
    pub(crate) until: usize,
    pub(crate) steps: usize,
    pub(crate) replaced: Replaced,
    /// How long it is frozen when the second member begins.
    pub(crate) after: Duration,
}

/// What happens to whom, and when.
#[derive(Debug, Clone, Default)]
pub(crate) struct Schedule {
    /// Member, number of its step, and what happens then.
    pub(crate) faults: Vec<(usize, usize, Fault)>,
    pub(crate) frozen: Option<Frozen>,
    pub(crate) without: Option<Without>,
    /// How many replicas there are beside the first.
    pub(crate) more_replicas: usize,
}

impl Schedule {
    pub(crate) fn fault(&self, member: usize, step: usize) -> Option<Fault> {
        let mut faults = self.faults.iter();
        faults
            .find(|(who, when, _)| (*who, *when) == (member, step))
            .map(|(_, _, fault)| *fault)
    }
}
