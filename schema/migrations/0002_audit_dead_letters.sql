CREATE TABLE IF NOT EXISTS {table}{on_cluster}
(
    source_incarnation UInt32                 COMMENT 'Position: which life of the topic',
    source_partition   UInt32                 COMMENT 'Position: the partition',
    source_offset      UInt64                 COMMENT 'Position: the offset' CODEC(Delta, ZSTD(1)),
    source_offset_last UInt64                 COMMENT 'The last offset it stands for: higher than source_offset only for the kinds absent and skipped' CODEC(Delta, ZSTD(1)),
    kind               LowCardinality(String) COMMENT 'malformed, unsupported_version, too_large, duplicate, absent, skipped',
    reason             String                 COMMENT 'What is wrong with it, in words',
    record_key         String                 COMMENT 'The key of the record, as it was',
    record_value       String                 COMMENT 'The value of the record, as it was' CODEC(ZSTD(1)),
    logged_at          DateTime64(3, 'UTC')   COMMENT 'When Kafka took it',
    ingested_at        DateTime64(3, 'UTC')   COMMENT 'When the consumer sent the row, on the clock of ClickHouse',

    CONSTRAINT in_time CHECK ingested_at > nowInBlock64(3) - INTERVAL {late_limit} SECOND
)
ENGINE = {engine}MergeTree{replica}
PARTITION BY toYYYYMM(logged_at)
ORDER BY (source_incarnation, source_partition, source_offset)
SETTINGS {settings}
COMMENT 'Every record that could not become an event, with its bytes'
