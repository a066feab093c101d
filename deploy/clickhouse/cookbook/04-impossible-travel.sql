-- Impossible travel: who signed in from two countries within a few hours?
--
-- Ask it once a day. Events have no coordinates, and the middle of a country says nothing of the distance
-- to its neighbour, so this goes by the change of country and leaves the map to you. It does not see
-- travel within one country. It also shows who lives at a border and who switches a VPN on: where same_agent
-- is 1 that is more likely.
--
-- Takes, with the values of the sample:
--   project   acme                 the project
--   from      2026-03-02 00:00:00  the time looked at, in UTC
--   to        2026-03-03 00:00:00
--   hours     4                    less than so many hours between the two
--
-- Costs the sign-ins of the project between from and to.
-- Reads by: project_id, created_at, by_words
--
-- Sample:
--   ┌─user_id─┬─identifier──────┬─left_country─┬─────────────left_at─┬─country─┬────────signed_in_at─┬─minutes─┬─address───────┬─same_agent─┬─session_id─┐
--   │ bob     │ bob@example.com │ DE           │ 2026-03-02 09:00:00 │ NL      │ 2026-03-02 09:30:00 │      30 │ 198.51.100.99 │          1 │ s4         │
--   │ ann     │ ann@example.com │ DE           │ 2026-03-02 08:00:00 │ AU      │ 2026-03-02 10:15:00 │     135 │ 203.0.113.40  │          0 │ s2         │
--   └─────────┴─────────────────┴──────────────┴─────────────────────┴─────────┴─────────────────────┴─────────┴───────────────┴────────────┴────────────┘
SELECT
    user_id,
    identifier,
    before.1 AS left_country,
    toDateTime(before.2) AS left_at,
    country_code AS country,
    toDateTime(created_at) AS signed_in_at,
    dateDiff('minute', before.2, created_at) AS minutes,
    replaceOne(toString(ip_address), '::ffff:', '') AS address,
    user_agent = before.3 AS same_agent,
    session_id
FROM
(
    SELECT
        *,
        lagInFrame((country_code, created_at, user_agent)) OVER
        (
            PARTITION BY user_id
            ORDER BY created_at, event_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS before
    FROM audit_sign_ins
    WHERE project_id = {project:String}
        AND created_at >= {from:DateTime64(3, 'UTC')} AND created_at < {to:DateTime64(3, 'UTC')}
        AND success AND country_code != ''
)
WHERE before.1 != country_code
    AND created_at < before.2 + toIntervalHour({hours:UInt32})
ORDER BY created_at, event_id
