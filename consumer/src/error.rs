//! Errors, each named after what its receiver must do.

use clickhouse::error::Error;

/// Errors that stay until somebody changes something: no such column, table, database or setting,
/// wrong types, no access, wrong password.
/// Source: `src/Common/ErrorCodes.cpp` of ClickHouse.
const REFUSALS: [u32; 14] = [16, 20, 36, 47, 50, 53, 60, 81, 115, 164, 192, 193, 497, 516];

/// Whether asking again is of no use.
pub(crate) fn is_refusal(error: &Error) -> bool {
    let Error::BadResponse(text) = error else {
        return matches!(
            error,
            Error::SchemaMismatch(_) | Error::InvalidParams(_) | Error::Unsupported(_)
        );
    };
    text.strip_prefix("Code: ")
        .and_then(|rest| rest.split_once('.'))
        .and_then(|(code, _)| code.parse().ok())
        .is_some_and(|code: u32| REFUSALS.contains(&code))
}

/// Why ClickHouse did not answer a question.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Ask again later.
    #[error("clickhouse is not available")]
    Unavailable(#[source] Error),
    /// Stop: it will answer the same until somebody changes something.
    #[error(
        "clickhouse refuses to be read; are the tables there? `audit-consumer migrate` makes them"
    )]
    Refused(#[source] Error),
    /// Stop: the partition is stored on another shard than the configuration says.
    #[error(
        "partition {0} is stored on another shard than clickhouse.shards says: put the shards back \
         in their order, as many as there were when the topic was registered"
    )]
    OtherShard(u32),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        if is_refusal(&error) {
            Self::Refused(error)
        } else {
            Self::Unavailable(error)
        }
    }
}

/// Why an insert was not answered cleanly.
#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    /// Recover: it may have been stored, or may still be.
    #[error("the outcome of an insert is unknown")]
    InDoubt(#[source] Error),
    /// Stop: it was not stored, and will not be until somebody changes something.
    #[error(
        "clickhouse refuses the insert; are the tables there? `audit-consumer migrate` makes them"
    )]
    Refused(#[source] Error),
}

impl From<Error> for InsertError {
    fn from(error: Error) -> Self {
        if is_refusal(&error) {
            Self::Refused(error)
        } else {
            Self::InDoubt(error)
        }
    }
}

/// Why a partition is no longer consumed by this process.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// Drop what is held, quietly: another member has the partition now.
    #[error("the partition was taken away")]
    Fenced,
    /// Leave the group and join it anew: a copy of a commit may be on its way, which only the end
    /// of this membership makes the broker refuse.
    #[error("an offset commit may have been sent twice")]
    MembershipInDoubt(#[source] Option<rdkafka::error::KafkaError>),
    /// Alarm: ClickHouse refuses what it is asked.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Alarm: ClickHouse refuses what it is sent.
    #[error(transparent)]
    Insert(#[from] InsertError),
    /// Alarm: Kafka refuses the group's commits.
    #[error("kafka refuses to take offset commits of this group")]
    Commit(#[source] rdkafka::error::KafkaError),
    /// Alarm: records expired or went before they were read.
    #[error(
        "the log begins at offset {log_start}, but offset {missing} was never stored: \
         records expired before they were read, or since the backup was made that was restored; \
         `audit-consumer skip --to {log_start}` records them as given up and goes on"
    )]
    Lost {
        /// The first offset that is neither stored nor in Kafka any more.
        missing: u64,
        /// Where the log begins now.
        log_start: u64,
    },
    /// Alarm: the topic is not the one whose records are stored.
    #[error(
        "the topic is not the one that was consumed before ({reason}); if it was created anew, \
         register it with `audit-consumer migrate --new-incarnation`"
    )]
    OtherTopic {
        /// What gave it away.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_table_stops_and_a_busy_server_does_not() {
        let says = |text: &str| is_refusal(&Error::BadResponse(text.to_owned()));
        assert!(says(
            "Code: 60. DB::Exception: Unknown table. (UNKNOWN_TABLE)"
        ));
        for busy in [
            "Code: 252. DB::Exception: Too many parts. (TOO_MANY_PARTS)",
            "Code: 469. DB::Exception: Constraint `in_time` is violated. (VIOLATED_CONSTRAINT)",
            "Code: 242. DB::Exception: Table is in readonly mode. (TABLE_IS_READ_ONLY)",
            "Code: 285. DB::Exception: Number of alive replicas. (TOO_FEW_LIVE_REPLICAS)",
            "<html>bad gateway</html>",
            "",
        ] {
            assert!(!says(busy), "{busy}");
        }
        assert!(!is_refusal(&Error::TimedOut));
    }
}
