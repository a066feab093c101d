-- New country: who signed in from a country for the first time?
--
-- Ask it once a day, and for one user when in doubt about a sign-in. Who had never signed in before from
-- is new, not abroad, and left out.
--
-- Takes, with the values of the sample:
--   project   acme                 the project
--   from      2026-03-02 00:00:00  the time looked at, in UTC
--   to        2026-03-03 00:00:00
--   days      90                   so many days before from count as what a user is used to
--
-- Costs the sign-ins of the project between from and to and of the days before, twice.
-- Reads by: project_id, created_at, by_words
--
-- Sample:
--   ┌────────signed_in_at─┬─user_id─┬─identifier──────┬─country─┬─known───────┬─address──────┬─session_id─┐
--   │ 2026-03-02 08:00:00 │ ann     │ ann@example.com │ NG      │ ['AT','DE'] │ 203.0.113.50 │ s3         │
--   │ 2026-03-02 10:00:00 │ bob     │ bob@example.com │ AT      │ ['DE']      │ 198.51.100.7 │ s7         │
--   └─────────────────────┴─────────┴─────────────────┴─────────┴─────────────┴──────────────┴────────────┘
WITH
    {from:DateTime64(3, 'UTC')} AS since,
    countries AS
    (
        SELECT
            user_id,
            country_code,
            argMin((identifier, ip_address, session_id), (created_at, event_id)) AS at_first,
            min(created_at) AS first
        FROM audit_sign_ins
        WHERE project_id = {project:String}
            AND created_at >= since - toIntervalDay({days:UInt32}) AND created_at < {to:DateTime64(3, 'UTC')}
            AND success AND country_code != ''
        GROUP BY user_id, country_code
    )
SELECT
    toDateTime(first) AS signed_in_at,
    user_id,
    at_first.1 AS identifier,
    country_code AS country,
    known,
    replaceOne(toString(at_first.2), '::ffff:', '') AS address,
    at_first.3 AS session_id
FROM countries
INNER JOIN
(
    SELECT user_id, arraySort(groupArray(country_code)) AS known
    FROM countries
    WHERE first < since
    GROUP BY user_id
) AS used USING user_id
WHERE first >= since
ORDER BY first, user_id
