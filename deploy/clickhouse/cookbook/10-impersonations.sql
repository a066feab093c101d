-- Impersonations: who acted as whom, and what was done meanwhile?
--
-- Ask it once a week, and for every complaint of a user about something they did not do. Only some events
-- carry a session, so a row says by what it is taken for the administrator's: the session, the address, or
-- nothing but the time, when it may well be the user's own.
--
-- Takes, with the values of the sample:
--   project  acme                 the project
--   from     2026-03-02 00:00:00  impersonations that began in this time, in UTC
--   to       2026-03-03 00:00:00
--   hours    1                    how long one lasts of which no end was reported
--   days     1                    how long one lasts at most
--
-- Costs the events of the project from from to the days after to, and all of it for the ends of impersonations.
-- Reads by: project_id
--
-- Sample:
--   ┌─admin─┬─as_user─┬──────────started_at─┬────────────ended_at─┬──────────────────at─┬─what─────────────────┬─organization─┬─known_by─┬─address──────┐
--   │ ann   │ bob     │ 2026-03-02 10:00:01 │ 2026-03-02 10:06:04 │ 2026-03-02 10:00:01 │ user_impersonated    │              │ session  │ 192.0.2.10   │
--   │ ann   │ bob     │ 2026-03-02 10:00:01 │ 2026-03-02 10:06:04 │ 2026-03-02 10:02:02 │ organization_updated │ club         │ address  │ 192.0.2.10   │
--   │ ann   │ bob     │ 2026-03-02 10:00:01 │ 2026-03-02 10:06:04 │ 2026-03-02 10:04:03 │ user_profile_updated │              │ time     │ 198.51.100.8 │
--   │ ann   │ bob     │ 2026-03-02 10:00:01 │ 2026-03-02 10:06:04 │ 2026-03-02 10:06:04 │ session_revoked      │              │ session  │ 192.0.2.10   │
--   │ carl  │ dora    │ 2026-03-02 12:00:01 │                ᴺᵁᴸᴸ │ 2026-03-02 12:00:01 │ user_impersonated    │              │ session  │ 192.0.2.10   │
--   │ carl  │ dora    │ 2026-03-02 12:00:01 │                ᴺᵁᴸᴸ │ 2026-03-02 12:30:02 │ user_profile_updated │              │ address  │ 192.0.2.10   │
--   └───────┴─────────┴─────────────────────┴─────────────────────┴─────────────────────┴──────────────────────┴──────────────┴──────────┴──────────────┘
WITH impersonations AS
(
    SELECT *, ifNull(ended_at, started_at + toIntervalHour({hours:UInt32})) AS until
    FROM audit_impersonations
    WHERE project_id = {project:String}
        AND started_at >= {from:DateTime64(3, 'UTC')} AND started_at < {to:DateTime64(3, 'UTC')}
)
SELECT
    i.admin_id AS admin,
    i.user_id AS as_user,
    toDateTime(i.started_at) AS started_at,
    toDateTime(i.ended_at) AS ended_at,
    toDateTime(e.created_at) AS at,
    if(e.documented_type != '', e.documented_type, e.event_type) AS what,
    e.organization_id AS organization,
    multiIf(e.session_id = i.session_id, 'session', e.ip_address = i.ip_address, 'address', 'time') AS known_by,
    replaceOne(toString(e.ip_address), '::ffff:', '') AS address
FROM audit_events AS e
INNER JOIN impersonations AS i ON if(e.documented_type = 'user_impersonated', e.user_id, e.actor_id) = i.user_id
WHERE e.project_id = {project:String}
    AND e.created_at >= {from:DateTime64(3, 'UTC')}
    AND e.created_at < {to:DateTime64(3, 'UTC')} + toIntervalDay({days:UInt32})
    AND e.created_at >= i.started_at AND e.created_at <= i.until
ORDER BY i.started_at, i.session_id, e.created_at, e.event_id
