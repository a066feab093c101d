-- Dormant accounts: who signed in again after a long time?
--
-- Ask it once a day. An account that nobody watches is a good place to hide; compare country and
-- program with those of the time before.
--
-- Takes, with the values of the sample:
--   project   acme                 the project
--   from      2026-03-02 00:00:00  the time looked at, in UTC; shorter than the days below
--   to        2026-03-03 00:00:00
--   days      90                   the last sign-in before from is at least so many days older
--
-- Costs all sign-ins of the project before to.
-- Reads by: project_id, created_at, by_words
--
-- Sample:
--   ┌────────────woken_at─┬─user_id─┬─identifier──────┬───────────last_seen─┬─days_away─┬─country_before─┬─country─┬─same_agent─┬─address──────┐
--   │ 2026-03-02 03:00:00 │ ann     │ ann@example.com │ 2025-09-01 08:00:00 │       182 │ DE             │ UA      │          0 │ 203.0.113.70 │
--   │ 2026-03-02 09:00:00 │ bob     │ bob@example.com │ 2025-10-15 12:00:00 │       138 │ DE             │ DE      │          1 │ 192.0.2.10   │
--   └─────────────────────┴─────────┴─────────────────┴─────────────────────┴───────────┴────────────────┴─────────┴────────────┴──────────────┘
WITH {from:DateTime64(3, 'UTC')} AS since
SELECT
    toDateTime(minIf(created_at, created_at >= since) AS back) AS woken_at,
    user_id,
    argMinIf(identifier, created_at, created_at >= since) AS identifier,
    toDateTime(maxIf(created_at, created_at < since) AS gone) AS last_seen,
    dateDiff('day', gone, back) AS days_away,
    argMaxIf(country_code, created_at, created_at < since) AS country_before,
    argMinIf(country_code, created_at, created_at >= since) AS country,
    argMaxIf(user_agent, created_at, created_at < since) = argMinIf(user_agent, created_at, created_at >= since) AS same_agent,
    replaceOne(toString(argMinIf(ip_address, created_at, created_at >= since)), '::ffff:', '') AS address
FROM audit_sign_ins
WHERE project_id = {project:String} AND created_at < {to:DateTime64(3, 'UTC')} AND success
GROUP BY user_id
HAVING countIf(created_at < since) > 0 AND back >= gone + toIntervalDay({days:UInt32})
ORDER BY woken_at, user_id
