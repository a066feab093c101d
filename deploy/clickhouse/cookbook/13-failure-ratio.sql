-- More failures than usual: in which hours did more sign-ins fail than in the month before?
--
-- Ask it every hour; it is the alarm for what 01 and 02 find, and also for a sign-in that is broken.
--
-- Takes, with the values of the sample:
--   project   acme                 the project
--   from      2026-03-02 00:00:00  the time looked at, whole hours in UTC
--   to        2026-03-03 00:00:00
--   failures  10                   at least so many failures in the hour …
--   times     3                    … and a share of all sign-ins so many times that of the 30 days before from
--
-- Costs the sign-ins of the project between from and to, and of the 30 days before, twice.
-- Reads by: project_id, created_at, by_words
--
-- Sample:
--   ┌────────────────hour─┬─sign_ins─┬─failures─┬─percent─┬─usual_percent─┐
--   │ 2026-03-02 03:00:00 │       15 │       12 │      80 │          19.6 │
--   └─────────────────────┴──────────┴──────────┴─────────┴───────────────┘
WITH
    {from:DateTime64(3, 'UTC')} AS since,
    hours AS
    (
        SELECT
            toStartOfHour(created_at) AS hour,
            count() AS tried,
            countIf(NOT success) AS failed
        FROM audit_sign_ins
        WHERE project_id = {project:String}
            AND created_at >= since - toIntervalDay(30) AND created_at < {to:DateTime64(3, 'UTC')}
        GROUP BY hour
    ),
    (SELECT sum(failed) / greatest(sum(tried), 1) FROM hours WHERE hour < since) AS usual
SELECT
    toDateTime(hour) AS hour,
    tried AS sign_ins,
    failed AS failures,
    round(100 * failed / tried, 1) AS percent,
    round(100 * usual, 1) AS usual_percent
FROM hours
WHERE hour >= since AND failed >= {failures:UInt32} AND failed / tried >= {times:Float64} * usual
ORDER BY hour
