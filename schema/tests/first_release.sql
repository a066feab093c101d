-- The tables of the first release on one server, as its `migrate` made them. Databases like this are out
-- there: nothing here is ever changed.
CREATE TABLE IF NOT EXISTS audit_migrations (version UInt32, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = ReplacingMergeTree ORDER BY version COMMENT 'The numbered changes of the tables that were made';

CREATE TABLE IF NOT EXISTS audit_events
(
    project_id         LowCardinality(String) COMMENT 'Whose event it is; from the API key',
    event_id           UUID                   COMMENT 'Identity of the event, mostly a UUIDv7',
    event_type         LowCardinality(String) COMMENT 'What happened, as it was sent',
    documented_type    LowCardinality(String) COMMENT 'What happened, as Better Auth documents it; empty if it does not',
    event_key          String                 COMMENT 'What it happened to; events of one key keep their order',
    event_display_name String                 COMMENT 'A sentence for people',
    user_id            String                 COMMENT 'The user it is about',
    organization_id    String                 COMMENT 'The organization it is about',
    identifier         String                 COMMENT 'E-mail address or name of that user',
    actor_id           String                 COMMENT 'Who did it',
    actor_type         LowCardinality(String) COMMENT 'In which role: user, admin, dashboard, organization',
    outcome            LowCardinality(String) COMMENT 'How it ended: success, failure, blocked, challenged',
    session_id         String                 COMMENT 'The session it happened in',
    request_id         String                 COMMENT 'The request it happened in',
    ip_address         IPv6                   COMMENT 'The address of the client, IPv4 mapped; :: if not given',
    city               LowCardinality(String) COMMENT 'The city of the client',
    country            LowCardinality(String) COMMENT 'The country of the client',
    country_code       LowCardinality(String) COMMENT 'The country of the client, ISO 3166-1 alpha-2',
    user_agent         LowCardinality(String) COMMENT 'The user agent of the client',
    event_data         String                 COMMENT 'Everything, as it was sent: a JSON object',
    created_at         DateTime64(3, 'UTC')   COMMENT 'When it happened, at the source' CODEC(Delta, ZSTD(1)),
    logged_at          DateTime64(3, 'UTC')   COMMENT 'When Kafka took it' CODEC(Delta, ZSTD(1)),
    ingested_at        DateTime64(3, 'UTC')   COMMENT 'When the consumer sent the row, on the clock of ClickHouse' CODEC(DoubleDelta, ZSTD(1)),
    source_incarnation UInt32                 COMMENT 'Position: which life of the topic' CODEC(T64, ZSTD(1)),
    source_partition   UInt32                 COMMENT 'Position: the partition' CODEC(T64, ZSTD(1)),
    source_offset      UInt64                 COMMENT 'Position: the offset' CODEC(Delta, ZSTD(1)),
    -- Data with a \u in it may hide words behind that. It has the word U as well, which no search for
    -- words asks for, as they are in small letters.
    words              String                 ALIAS concat(lower(concat(event_display_name, '\n', event_data)), if(position(event_data, '\\u') > 0, '\nU', ''))
                                              COMMENT 'The display name and the data in small letters: hasAllTokens(words, [''passkey''])',

    -- Whose rows are where, value by value: a text index finds and counts the rows of one value
    -- without reading the column.
    INDEX by_user_id user_id TYPE text(tokenizer = 'array', posting_list_codec = 'bitpacking'),
    INDEX by_organization_id organization_id TYPE text(tokenizer = 'array', posting_list_codec = 'bitpacking'),
    INDEX by_identifier identifier TYPE text(tokenizer = 'array', posting_list_codec = 'bitpacking'),
    INDEX by_actor_id actor_id TYPE text(tokenizer = 'array', posting_list_codec = 'bitpacking'),
    INDEX by_session_id session_id TYPE text(tokenizer = 'array', posting_list_codec = 'bitpacking'),
    INDEX by_request_id request_id TYPE text(tokenizer = 'array', posting_list_codec = 'bitpacking'),
    INDEX by_event_key event_key TYPE text(tokenizer = 'array', posting_list_codec = 'bitpacking'),
    INDEX by_ip_address toString(ip_address) TYPE text(tokenizer = 'array', posting_list_codec = 'bitpacking'),
    INDEX by_words words TYPE text(tokenizer = 'splitByNonAlpha'),
    INDEX by_event_id event_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_offset (source_incarnation, source_partition, source_offset) TYPE minmax GRANULARITY 1,

    -- The offsets of a partition in their order: what recovery, settling and the audit ask for.
    PROJECTION by_position
    (
        SELECT source_incarnation, source_partition, source_offset
        ORDER BY source_incarnation, source_partition, source_offset
    ),
    -- How many events there are of each kind.
    PROJECTION by_kind
    (
        SELECT project_id, event_type, documented_type, outcome, country, country_code, count()
        GROUP BY project_id, event_type, documented_type, outcome, country, country_code
    ),

    -- An insert that its sender has given up on must not land after its successor has looked.
    -- Taken per block: now64() would be the time the statement began, whenever its body arrives.
    CONSTRAINT in_time CHECK ingested_at > nowInBlock64(3) - INTERVAL 5 SECOND
)
ENGINE = MergeTree
-- The month Kafka took it in is the same at every replay, and a late event stays in one part.
PARTITION BY toYYYYMM(logged_at)
ORDER BY (project_id, created_at, event_id)
SETTINGS default_compression_codec = 'ZSTD(1)', non_replicated_deduplication_window = 100000
COMMENT 'Every event, once. A position is here or in audit_dead_letters, never in both'
;

CREATE TABLE IF NOT EXISTS audit_dead_letters
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

    CONSTRAINT in_time CHECK ingested_at > nowInBlock64(3) - INTERVAL 5 SECOND
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(logged_at)
ORDER BY (source_incarnation, source_partition, source_offset)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Every record that could not become an event, with its bytes'
;

CREATE TABLE IF NOT EXISTS audit_watermarks
(
    incarnation    UInt32               COMMENT 'Which life of the topic',
    partition      UInt32               COMMENT 'The partition',
    next_offset    UInt64               COMMENT 'Every offset below it was counted in the two tables',
    complete_up_to DateTime64(3, 'UTC') COMMENT 'Every record Kafka took before it is readable',
    updated_at     DateTime64(3, 'UTC') COMMENT 'When this was found'
)
ENGINE = ReplacingMergeTree(next_offset)
ORDER BY (incarnation, partition)
COMMENT 'How far each partition is readable; read it with max(): both numbers only grow'
;

CREATE TABLE IF NOT EXISTS audit_sources
(
    topic         String               COMMENT 'Name of the Kafka topic',
    incarnation   UInt32               COMMENT 'Which life of it; from 1',
    partitions    UInt32               COMMENT 'How many partitions it has; fixed for an incarnation',
    begins        Array(UInt64)        COMMENT 'The first offset of each partition that belongs to it',
    registered_at DateTime64(3, 'UTC') COMMENT 'When it was registered'
)
ENGINE = ReplacingMergeTree(registered_at)
ORDER BY (topic, incarnation)
COMMENT 'The lives of the topic: a topic deleted and created anew begins another'
;

INSERT INTO audit_migrations (version) VALUES (1), (2), (3), (4);
