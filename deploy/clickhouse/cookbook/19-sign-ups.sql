-- Sign-ups: how many a day, and how many of them are real?
--
-- Ask it once a week. Accounts made by programs rarely verify their address, never sign in again, and are banned
-- later: a day on which that share falls is one to look at.
--
-- Takes, with the values of the sample:
--   project  acme                 the project
--   from     2026-03-01 00:00:00  the time looked at, whole days in UTC
--   to       2026-03-05 00:00:00
--
-- Costs all events of the project, because an account is known only with all of its events.
-- Reads by: project_id
--
-- Sample:
--   ┌────────day─┬─sign_ups─┬─verified─┬─percent─┬─within_a_day─┬─came_back─┬─banned─┬─deleted─┐
--   │ 2026-03-01 │        2 │        2 │     100 │            1 │         1 │      0 │       0 │
--   │ 2026-03-02 │        0 │        0 │       0 │            0 │         0 │      0 │       0 │
--   │ 2026-03-03 │        5 │        1 │      20 │            1 │         0 │      3 │       1 │
--   │ 2026-03-04 │        0 │        0 │       0 │            0 │         0 │      0 │       0 │
--   └────────────┴──────────┴──────────┴─────────┴──────────────┴───────────┴────────┴─────────┘
SELECT
    toDate(signed_up_at) AS day,
    count() AS sign_ups,
    countIf(verified_at >= signed_up_at) AS verified,
    round(100 * verified / sign_ups, 1) AS percent,
    countIf(verified_at >= signed_up_at AND verified_at < signed_up_at + toIntervalDay(1)) AS within_a_day,
    countIf(sign_ins > 1) AS came_back,
    countIf(is_banned) AS banned,
    countIf(deleted_at >= signed_up_at) AS deleted
FROM audit_accounts
WHERE project_id = {project:String}
    AND signed_up_at >= {from:DateTime64(3, 'UTC')} AND signed_up_at < {to:DateTime64(3, 'UTC')}
GROUP BY day
ORDER BY day WITH FILL FROM toDate({from:DateTime64(3, 'UTC')}) TO toDate({to:DateTime64(3, 'UTC')})
