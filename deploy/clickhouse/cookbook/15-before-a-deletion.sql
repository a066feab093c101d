-- Deleted users: what happened in the hour before?
--
-- Ask it for every complaint about a lost account: somebody who took an account over deletes it to hide.
--
-- Takes, with the values of the sample:
--   project  acme                 the project
--   from     2026-03-02 00:00:00  users deleted in this time, in UTC
--   to       2026-03-03 00:00:00
--   minutes  60                   so many minutes before the deletion
--
-- Costs the events of the project between from and to, and of the minutes before.
-- Reads by: project_id, created_at
--
-- Sample:
--   ┌─user_id─┬──────────deleted_at─┬─deleted_by─┬─minutes_before─┬─what─────────────────┬─outcome─┬─address──────┬─country─┐
--   │ ann     │ 2026-03-02 03:30:04 │ the user   │             20 │ user_sign_in_failed  │ failure │ 203.0.113.15 │ RU      │
--   │ ann     │ 2026-03-02 03:30:04 │ the user   │             15 │ user_signed_in       │ success │ 203.0.113.15 │ RU      │
--   │ ann     │ 2026-03-02 03:30:04 │ the user   │             15 │ session_created      │ success │ 203.0.113.15 │ RU      │
--   │ ann     │ 2026-03-02 03:30:04 │ the user   │             10 │ user_profile_updated │ success │ 203.0.113.15 │ RU      │
--   │ ann     │ 2026-03-02 03:30:04 │ the user   │              0 │ user_deleted         │ success │ 203.0.113.15 │ RU      │
--   │ bob     │ 2026-03-02 09:30:02 │ carl       │             30 │ user_signed_in       │ success │ 192.0.2.10   │ DE      │
--   │ bob     │ 2026-03-02 09:30:02 │ carl       │             30 │ session_created      │ success │ 192.0.2.10   │ DE      │
--   │ bob     │ 2026-03-02 09:30:02 │ carl       │              0 │ user_deleted         │ success │ 192.0.2.10   │ DE      │
--   └─────────┴─────────────────────┴────────────┴────────────────┴──────────────────────┴─────────┴──────────────┴─────────┘
WITH
    {from:DateTime64(3, 'UTC')} AS since,
    deletions AS
    (
        SELECT user_id, actor_id, created_at
        FROM audit_events
        WHERE project_id = {project:String} AND created_at >= since AND created_at < {to:DateTime64(3, 'UTC')}
            AND documented_type = 'user_deleted'
    )
SELECT
    d.user_id AS user_id,
    toDateTime(d.created_at) AS deleted_at,
    if(d.actor_id = d.user_id, 'the user', d.actor_id) AS deleted_by,
    dateDiff('minute', e.created_at, d.created_at) AS minutes_before,
    if(e.documented_type != '', e.documented_type, e.event_type) AS what,
    e.outcome AS outcome,
    replaceOne(toString(e.ip_address), '::ffff:', '') AS address,
    e.country_code AS country
FROM audit_events AS e
INNER JOIN deletions AS d ON e.user_id = d.user_id
WHERE e.project_id = {project:String}
    AND e.created_at >= since - toIntervalMinute({minutes:UInt32}) AND e.created_at < {to:DateTime64(3, 'UTC')}
    AND e.created_at >= d.created_at - toIntervalMinute({minutes:UInt32}) AND e.created_at <= d.created_at
ORDER BY d.created_at, d.user_id, e.created_at, e.event_id
