CREATE TABLE IF NOT EXISTS {table}{on_cluster}
(
    erasure_id   UUID                   COMMENT 'Which erasure; also the id of its event user_data_erased',
    project_id   LowCardinality(String) COMMENT 'In which project the person was erased',
    kind         LowCardinality(String) COMMENT 'What of the person: user (an id) or identifier (an e-mail address or name)',
    person       String                 COMMENT 'SHA-256 of salt, project, kind and value, in hex',
    salt         String                 COMMENT 'What makes that hash one of this project alone',
    value        String                 COMMENT 'The value itself while the erasure is at work; empty when it is done',
    erased_at    DateTime64(3, 'UTC')   COMMENT 'What happened, or what Kafka took, before it is erased; what came later is not',
    reason       String                 COMMENT 'Why, and by whom',
    events       UInt64                 COMMENT 'How many events there were to erase when it began',
    dead_letters UInt64                 COMMENT 'How many dead letters there were to erase when it began'
)
-- Rows are only ever added: consumers see by their number that there are new ones.
ENGINE = {engine}MergeTree{replica}
ORDER BY (project_id, erased_at)
COMMENT 'Who was erased, as hashes: what arrives of them later is stored without personal data'
