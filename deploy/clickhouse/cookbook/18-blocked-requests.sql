-- Blocked requests: which checks stop how many, and is that more than in the week before?
--
-- Ask it once a day. A check that suddenly stops more has met an attack, or has begun to stop your users.
--
-- Takes, with the values of the sample:
--   project  acme                 the project
--   from     2026-03-09 00:00:00  the time looked at, whole days in UTC
--   to       2026-03-11 00:00:00
--
-- Costs the events of the project between from and to, and of the seven days before.
-- Reads by: project_id, created_at
--
-- Sample:
--   ┌────────day─┬─check──────────┬─blocked─┬─challenged─┬─addresses─┬─mostly_at──────┬─a_day_in_the_week_before─┐
--   │ 2026-03-09 │ email_validity │       1 │          0 │         1 │ /sign-up/email │                      0.9 │
--   │ 2026-03-10 │ bot_detection  │       4 │          4 │         3 │ /sign-in/email │                        0 │
--   │ 2026-03-10 │ email_validity │       1 │          0 │         1 │ /sign-up/email │                        1 │
--   └────────────┴────────────────┴─────────┴────────────┴───────────┴────────────────┴──────────────────────────┘
WITH
    {from:DateTime64(3, 'UTC')} AS since,
    days AS
    (
        SELECT
            toDate(created_at) AS day,
            name AS check,
            countIf(verdict = 'blocked') AS blocked,
            countIf(verdict = 'challenged') AS challenged,
            uniqExact(ip_address) AS addresses,
            topK(1)(path)[1] AS mostly_at
        FROM audit_security_events
        WHERE project_id = {project:String}
            AND created_at >= since - toIntervalDay(7) AND created_at < {to:DateTime64(3, 'UTC')}
            AND verdict IN ('blocked', 'challenged')
        GROUP BY day, check
    )
SELECT *
FROM
(
    SELECT
        *,
        round(sum(blocked + challenged) OVER
        (
            PARTITION BY check
            ORDER BY day
            RANGE BETWEEN 7 PRECEDING AND 1 PRECEDING
        ) / 7, 1) AS a_day_in_the_week_before
    FROM days
)
WHERE day >= toDate(since)
ORDER BY day, check
