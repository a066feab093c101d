CREATE TABLE IF NOT EXISTS {table}{on_cluster}
(
    incarnation UInt32 COMMENT 'Position: which life of the topic',
    partition   UInt32 COMMENT 'Position: the partition',
    chunk       UInt64 COMMENT 'The offset divided by 1000000',
    offsets     AggregateFunction(groupBitmap, UInt64)
                       COMMENT 'The offsets whose rows retention took away, or is about to: groupBitmapMerge(offsets) counts them',
    last        AggregateFunction(max, Tuple(UInt64, DateTime64(3, 'UTC')))
                       COMMENT 'The highest of them at which Kafka had a record, and when Kafka took that'
)
ENGINE = {engine}AggregatingMergeTree{replica}
ORDER BY (incarnation, partition, chunk)
-- Once the rows are gone nothing else can tell them from lost ones. It is written rarely.
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Which offsets retention took away, written down before it does: they are not missing'
