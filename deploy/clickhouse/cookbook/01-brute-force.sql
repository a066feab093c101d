-- Brute force: which addresses fail to sign in again and again?
--
-- Ask it every hour, or when failures rise (13). Each row is an address to block; whoever it got in as
-- is in 03.
--
-- Takes, with the values of the sample:
--   project   acme                 the project
--   from      2026-03-02 00:00:00  the time looked at, in UTC
--   to        2026-03-03 00:00:00
--   failures  10                   so many failures …
--   minutes   15                   … within so many minutes, wherever these begin
--
-- Costs the sign-ins of the project between from and to.
-- Reads by: project_id, created_at, by_words
--
-- Sample:
--   ┌─address─────┬─country─┬─failures─┬─accounts─┬─most_tried──────┬───────────────first─┬───────────────alarm─┬────────────────last─┐
--   │ 203.0.113.7 │ RU      │       11 │        2 │ ann@example.com │ 2026-03-02 02:58:00 │ 2026-03-02 03:08:00 │ 2026-03-02 14:00:00 │
--   └─────────────┴─────────┴──────────┴──────────┴─────────────────┴─────────────────────┴─────────────────────┴─────────────────────┘
WITH failures AS
(
    SELECT
        ip_address,
        country_code,
        identifier,
        created_at,
        lagInFrame(created_at, {failures:UInt32} - 1) OVER
        (
            PARTITION BY ip_address
            ORDER BY created_at, event_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS so_many_before
    FROM audit_sign_ins
    WHERE project_id = {project:String}
        AND created_at >= {from:DateTime64(3, 'UTC')} AND created_at < {to:DateTime64(3, 'UTC')}
        AND NOT success AND ip_address != toIPv6('::')
)
SELECT
    replaceOne(toString(ip_address), '::ffff:', '') AS address,
    any(country_code) AS country,
    count() AS failures,
    uniqExact(identifier) AS accounts,
    topK(1)(identifier)[1] AS most_tried,
    toDateTime(min(created_at)) AS first,
    toDateTime(minIf(created_at, created_at <= so_many_before + toIntervalMinute({minutes:UInt32}))) AS alarm,
    toDateTime(max(created_at)) AS last
FROM failures
GROUP BY ip_address
HAVING countIf(created_at <= so_many_before + toIntervalMinute({minutes:UInt32})) > 0
ORDER BY failures DESC, address
