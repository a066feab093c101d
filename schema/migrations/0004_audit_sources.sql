CREATE TABLE IF NOT EXISTS {table}{on_cluster}
(
    topic         String               COMMENT 'Name of the Kafka topic',
    incarnation   UInt32               COMMENT 'Which life of it; from 1',
    partitions    UInt32               COMMENT 'How many partitions it has; fixed for an incarnation',
    begins        Array(UInt64)        COMMENT 'The first offset of each partition that belongs to it',
    registered_at DateTime64(3, 'UTC') COMMENT 'When it was registered'
)
ENGINE = {engine}ReplacingMergeTree{replica_of registered_at}
ORDER BY (topic, incarnation)
COMMENT 'The lives of the topic: a topic deleted and created anew begins another'
