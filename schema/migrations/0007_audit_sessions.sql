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
    minOrNullIf(happened.created_at, happened.ends != '') AS ended_alone_at,
    arrayFilter(time -> time > begun.created_at, any(revoked.times)) AS later,
    if(empty(later), NULL, arrayMin(later)) AS all_revoked_at,
    all_revoked_at IS NULL OR ended_alone_at <= all_revoked_at AS alone
SELECT
    begun.project_id AS project_id,
    begun.session_id AS session_id,
    begun.user_id AS user_id,
    begun.identifier AS identifier,
    begun.created_at AS started_at,
    if(alone, ended_alone_at, all_revoked_at) AS ended_at,
    multiIf(ended_at IS NULL, '', alone, argMinIf(happened.ends, happened.created_at, happened.ends != ''), 'all_revoked') AS ended_by,
    begun.login_method AS login_method,
    begun.ip_address AS ip_address,
    begun.city AS city,
    begun.country AS country,
    begun.country_code AS country_code,
    begun.user_agent AS user_agent,
    count() AS events
FROM
(
    SELECT
        project_id,
        user_id,
        session_id,
        created_at,
        transform(documented_type, ['user_signed_out', 'session_revoked'], ['signed_out', 'revoked'], '') AS ends
    FROM audit_events
    WHERE session_id != ''
) AS happened
-- In this order what is kept in memory is the sessions that were asked for, not what happened in all.
INNER JOIN
(
    SELECT *
    FROM audit_log
    WHERE event_type = 'session_created' AND session_id != ''
) AS begun
    ON begun.project_id = happened.project_id AND begun.user_id = happened.user_id AND begun.session_id = happened.session_id
LEFT JOIN
(
    SELECT project_id, user_id, groupArray(created_at) AS times
    FROM audit_events
    WHERE documented_type = 'sessions_revoked_all'
    GROUP BY project_id, user_id
) AS revoked
    ON begun.project_id = revoked.project_id AND begun.user_id = revoked.user_id
GROUP BY
    begun.project_id, begun.session_id, begun.user_id, begun.identifier, begun.created_at, begun.login_method,
    begun.ip_address, begun.city, begun.country, begun.country_code, begun.user_agent
COMMENT 'Sessions, one row per session_created, and how each ended. Give a project_id and a time. `=` on user_id and session_id use text indexes, for the beginnings as for what came of them; started_at narrows the beginnings only (by the key), and what came of them is looked for in all events of the project'
