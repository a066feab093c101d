CREATE TABLE IF NOT EXISTS {table}{on_cluster}
(
    table_name     LowCardinality(String) COMMENT 'audit_events or audit_dead_letters',
    project_id     LowCardinality(String) COMMENT 'Whose rows; empty for dead letters',
    month          UInt32                 COMMENT 'The month Kafka took them in, such as 202611',
    removed_before DateTime64(3, 'UTC')   COMMENT 'All that Kafka took before it was taken away',
    kept_for       LowCardinality(String) COMMENT 'The setting that said so',
    whole          Bool                   COMMENT 'Whether the month was dropped as a whole',
    rows           UInt64                 COMMENT 'How many rows were to go',
    recorded_at    DateTime64(3, 'UTC')   COMMENT 'When this was written down, just before'
)
ENGINE = {engine}ReplacingMergeTree{replica_of rows}
ORDER BY (project_id, table_name, month, removed_before)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'What retention took away, when and why; read it with FINAL. What a run left that was cut is there once more if another day went on with it'
