//! Errors, each named after what its receiver must do.

/// Why ClickHouse did not answer a question.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Ask again later.
    #[error("clickhouse is not available")]
    Unavailable(#[source] clickhouse::error::Error),
    /// Stop: it will answer the same until somebody changes something.
    #[error(
        "clickhouse refuses to be read; are the tables there? `audit-consumer migrate` makes them"
    )]
    Refused(#[source] clickhouse::error::Error),
    /// Stop: the partition is stored on another shard than the configuration says.
    #[error(
        "partition {0} is stored on another shard than clickhouse.shards says: put the shards back \
         in their order, as many as there were when the topic was registered"
    )]
    OtherShard(u32),
}

/// Why an insert was not answered cleanly.
#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    /// Recover: it may have been stored, or may still be.
    #[error("the outcome of an insert is unknown")]
    InDoubt(#[source] clickhouse::error::Error),
    /// Stop: it was not stored, and will not be until somebody changes something.
    #[error(
        "clickhouse refuses the insert; are the tables there? `audit-consumer migrate` makes them"
    )]
    Refused(#[source] clickhouse::error::Error),
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
