CREATE TABLE IF NOT EXISTS {table}{on_cluster}
(
    incarnation    UInt32               COMMENT 'Which life of the topic',
    partition      UInt32               COMMENT 'The partition',
    next_offset    UInt64               COMMENT 'Every offset below it was counted in the two tables',
    complete_up_to DateTime64(3, 'UTC') COMMENT 'Every record Kafka took before it is readable',
    updated_at     DateTime64(3, 'UTC') COMMENT 'When this was found'
)
ENGINE = {engine}ReplacingMergeTree{replica_of next_offset}
ORDER BY (incarnation, partition)
COMMENT 'How far each partition is readable; read it with max(): both numbers only grow'
