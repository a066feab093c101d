CREATE OR REPLACE VIEW {table}{on_cluster}
(
    project_id   LowCardinality(String)         COMMENT 'Whose session it is',
    session_id   String                         COMMENT 'The session',
    user_id      String                         COMMENT 'Who is signed in by it',
    identifier   String                         COMMENT 'E-mail address or name of that user then',
    started_at   DateTime64(3, 'UTC')           COMMENT 'When it was created',
    ended_at     Nullable(DateTime64(3, 'UTC')) COMMENT 'When it was ended; NULL if it was not, or has just expired, which nobody reports',
    ended_by     String                         COMMENT 'signed_out, revoked, all_revoked; empty if it was not ended',
    login_method String                         COMMENT 'How it was begun: email, passkey, magic-link, impersonation …; empty if not known',
    ip_address   IPv6                           COMMENT 'The address it was begun from, IPv4 mapped; :: if not given',
    city         LowCardinality(String)         COMMENT 'The city it was begun from',
    country      LowCardinality(String)         COMMENT 'The country it was begun from',
    country_code LowCardinality(String)         COMMENT 'The country it was begun from, ISO 3166-1 alpha-2',
    user_agent   LowCardinality(String)         COMMENT 'The user agent it was begun with',
    events       UInt64                         COMMENT 'How many events name this session and its user, its first and last among them'
)
AS
WITH
    minIf(happened.at, happened.ends != '') AS ended_alone_at,
    argMinIf(happened.ends, happened.at, happened.ends != '') AS ended_alone_by,
    any(revoked.at) AS all_revoked_at,
    all_revoked_at IS NULL OR ended_alone_at <= all_revoked_at AS alone
SELECT
    begun.project_id AS project_id,
    begun.session_id AS session_id,
    begun.user_id AS user_id,
    begun.identifier AS identifier,
    begun.created_at AS started_at,
    if(alone, ended_alone_at, all_revoked_at) AS ended_at,
    multiIf(ended_at IS NULL, '', alone, ended_alone_by, 'all_revoked') AS ended_by,
    begun.login_method AS login_method,
    begun.ip_address AS ip_address,
    begun.city AS city,
    begun.country AS country,
    begun.country_code AS country_code,
    begun.user_agent AS user_agent,
    count() AS events
FROM
(
    SELECT *
    FROM audit_log
    WHERE event_type = 'session_created' AND session_id != ''
) AS begun
-- The first time after it that all sessions of its user were revoked.
ASOF LEFT JOIN
(
    SELECT project_id, user_id, created_at, toNullable(created_at) AS at
    FROM audit_events
    WHERE documented_type = 'sessions_revoked_all'
) AS revoked
    ON begun.project_id = revoked.project_id AND begun.user_id = revoked.user_id AND begun.created_at < revoked.created_at
LEFT JOIN
(
    SELECT
        project_id,
        user_id,
        session_id,
        toNullable(created_at) AS at,
        transform(documented_type, ['user_signed_out', 'session_revoked'], ['signed_out', 'revoked'], '') AS ends
    FROM audit_events
    WHERE session_id != ''
) AS happened
    ON begun.project_id = happened.project_id AND begun.user_id = happened.user_id AND begun.session_id = happened.session_id
GROUP BY
    begun.project_id, begun.session_id, begun.user_id, begun.identifier, begun.created_at, begun.login_method,
    begun.ip_address, begun.city, begun.country, begun.country_code, begun.user_agent
COMMENT 'Sessions, one row per session_created, and how each ended. Give a project_id and a time: project_id, started_at, user_id and session_id find the beginnings by the key and the text indexes; project_id, user_id and session_id find the rest, too. Without one of the latter two all events of the project are looked through for what happened in these sessions'
