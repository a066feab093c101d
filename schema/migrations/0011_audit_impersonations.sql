CREATE OR REPLACE VIEW {table}{on_cluster}
(
    project_id   LowCardinality(String)         COMMENT 'Whose user it is',
    admin_id     String                         COMMENT 'Who acted as somebody else',
    user_id      String                         COMMENT 'As whom',
    identifier   String                         COMMENT 'E-mail address or name of that user then',
    session_id   String                         COMMENT 'The session in which',
    started_at   DateTime64(3, 'UTC')           COMMENT 'From when',
    ended_at     Nullable(DateTime64(3, 'UTC')) COMMENT 'Until when; NULL if that was not said, as when the session has expired',
    duration     Nullable(Float64)              COMMENT 'For how long, in seconds; NULL with ended_at',
    ip_address   IPv6                           COMMENT 'The address it was begun from, IPv4 mapped; :: if not given',
    country      LowCardinality(String)         COMMENT 'The country it was begun from',
    country_code LowCardinality(String)         COMMENT 'The country it was begun from, ISO 3166-1 alpha-2',
    user_agent   LowCardinality(String)         COMMENT 'The user agent it was begun with',
    events       UInt64                         COMMENT 'What was done meanwhile: how many events name this session and user, without its own beginning and end. The plugin names the session of hardly any other event'
)
AS SELECT
    begun.project_id AS project_id,
    begun.actor_id AS admin_id,
    begun.user_id AS user_id,
    begun.identifier AS identifier,
    begun.session_id AS session_id,
    begun.created_at AS started_at,
    minOrNullIf(happened.created_at, happened.documented_type IN ('user_impersonation_stopped', 'user_signed_out', 'session_revoked')) AS ended_at,
    dateDiff('millisecond', begun.created_at, ended_at) / 1000 AS duration,
    begun.ip_address AS ip_address,
    begun.country AS country,
    begun.country_code AS country_code,
    begun.user_agent AS user_agent,
    countIf(happened.documented_type NOT IN (
        'session_created', 'user_signed_in', 'user_impersonated',
        'user_impersonation_stopped', 'user_signed_out', 'session_revoked')) AS events
FROM
(
    SELECT project_id, user_id, session_id, documented_type, created_at
    FROM audit_events
    WHERE session_id != ''
) AS happened
-- In this order what is kept in memory is the impersonations, not what happened in all sessions.
INNER JOIN
(
    SELECT *
    FROM audit_events
    WHERE documented_type = 'user_impersonated' AND session_id != ''
) AS begun
    ON begun.project_id = happened.project_id AND begun.user_id = happened.user_id AND begun.session_id = happened.session_id
GROUP BY
    begun.project_id, begun.actor_id, begun.user_id, begun.identifier, begun.session_id, begun.created_at,
    begun.ip_address, begun.country, begun.country_code, begun.user_agent
COMMENT 'Who acted as somebody else, one row per user_impersonated. Give a project_id and a time. `=` on user_id and session_id use text indexes, for the beginnings as for what came of them; started_at (by the key) and admin_id (by a text index) narrow the beginnings only, and what came of them is looked for in all events of the project'
