CREATE OR REPLACE VIEW {table}{on_cluster}
(
    project_id      LowCardinality(String) COMMENT 'Whose events they are',
    hour             DateTime('UTC') COMMENT 'The hour, in UTC',
    event_type      LowCardinality(String) COMMENT 'What happened, as it was sent',
    documented_type LowCardinality(String) COMMENT 'What happened, as Better Auth documents it; empty if it does not',
    category        LowCardinality(String) COMMENT 'The group it is documented in: user, session, account, verification, organization, security; empty if it is not documented',
    outcome         LowCardinality(String) COMMENT 'How it ended: success, failure, blocked, challenged',
    events          UInt64                 COMMENT 'How many events there were',
    users           UInt64                 COMMENT 'How many different users they are about; within 1 % above some 10,000. Users of several rows must not be added up'
)
AS SELECT
    project_id,
    toStartOfHour(created_at, 'UTC') AS hour,
    event_type,
    documented_type,
    category,
    outcome,
    count() AS events,
    uniqIf(user_id, user_id != '') AS users
FROM audit_log
GROUP BY project_id, hour, event_type, documented_type, category, outcome
COMMENT 'How many events of each kind there were in each hour, counted when asked. Give a project_id and a time: the key answers project_id and hour. Without users it reads small columns only. For all time without hours ask audit_log, where the projection by_kind answers: SELECT category, count() … GROUP BY category'
