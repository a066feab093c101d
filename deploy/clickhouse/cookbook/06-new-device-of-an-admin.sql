-- New device: which administrators signed in with a program they had not used before?
--
-- Ask it every hour: an administrator's account is worth most. An administrator is who is owner or admin of
-- an organization, or has used the admin API. Numbers are taken out of the user agent, so that an update
-- of a browser is no new device. Who had never signed in before from is left out.
--
-- Takes, with the values of the sample:
--   project   acme                 the project
--   from      2026-03-02 00:00:00  the time looked at, in UTC
--   to        2026-03-03 00:00:00
--   days      90                   so many days before from count as what an administrator is used to
--
-- Costs the sign-ins of the project between from and to and of the days before, twice, and all its memberships.
-- Reads by: project_id, created_at, by_user_id, by_words
--
-- Sample:
--   ┌────────signed_in_at─┬─user_id─┬─identifier──────┬─user_agent─────────────┬─address──────┬─country─┬─session_id─┬─devices_before─┐
--   │ 2026-03-02 03:00:00 │ ann     │ ann@example.com │ python-requests/2.32.3 │ 203.0.113.60 │ RO      │ s-ann      │              1 │
--   │ 2026-03-02 04:00:00 │ bob     │ bob@example.com │ python-requests/2.32.3 │ 203.0.113.60 │ RO      │ s-bob      │              1 │
--   └─────────────────────┴─────────┴─────────────────┴────────────────────────┴──────────────┴─────────┴────────────┴────────────────┘
WITH
    {from:DateTime64(3, 'UTC')} AS since,
    devices AS
    (
        SELECT
            user_id,
            replaceRegexpAll(user_agent, '[0-9][0-9._]*', '') AS device,
            argMin((identifier, user_agent, ip_address, country_code, session_id), (created_at, event_id)) AS at_first,
            min(created_at) AS first
        FROM audit_sign_ins
        WHERE project_id = {project:String}
            AND created_at >= since - toIntervalDay({days:UInt32}) AND created_at < {to:DateTime64(3, 'UTC')}
            AND success AND user_agent != ''
            AND user_id IN
            (
                SELECT user_id
                FROM audit_memberships
                WHERE project_id = {project:String} AND hasAny(splitByChar(',', role), ['owner', 'admin'])
                    AND (left_at IS NULL OR left_at > since)
                UNION ALL
                SELECT actor_id
                FROM audit_events
                WHERE project_id = {project:String} AND actor_type = 'admin'
                    AND created_at >= since - toIntervalDay({days:UInt32}) AND created_at < {to:DateTime64(3, 'UTC')}
            )
        GROUP BY user_id, device
    )
SELECT
    toDateTime(first) AS signed_in_at,
    user_id,
    at_first.1 AS identifier,
    at_first.2 AS user_agent,
    replaceOne(toString(at_first.3), '::ffff:', '') AS address,
    at_first.4 AS country,
    at_first.5 AS session_id,
    known AS devices_before
FROM devices
INNER JOIN
(
    SELECT user_id, count() AS known
    FROM devices
    WHERE first < since
    GROUP BY user_id
) AS used USING user_id
WHERE first >= since
ORDER BY first, user_id
