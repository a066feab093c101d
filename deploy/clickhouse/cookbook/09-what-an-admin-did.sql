-- One administrator: what did they do?
--
-- Ask it when an administrator leaves, or their account was taken over. Each row says by what it is known
-- that it was them: their name; the session of an impersonation, in which the user is named (what does not
-- carry a session is in 10); or no more than an address they signed in from, because for members added,
-- removed, or given another role or team the plugin names the member. Failed sign-ins name whose account
-- it was, not who tried, and are left out.
--
-- Takes, with the values of the sample:
--   project  acme                 the project
--   admin    ann                  the id of the administrator
--   from     2026-03-02 00:00:00  the time looked at, in UTC
--   to       2026-03-03 00:00:00
--
-- Costs the events of the administrator, by an index; those of the project between from and to for sessions and
-- addresses.
-- Reads by: project_id, created_at, by_actor_id, by_session_id
--
-- Sample:
--   ┌──────────────────at─┬─what───────────────────────┬─about─┬─organization─┬─known_by─┬─address────┐
--   │ 2026-03-02 00:10:02 │ session_revoked            │ fay   │              │ session  │ 192.0.2.10 │
--   │ 2026-03-02 00:10:03 │ user_impersonation_stopped │ fay   │              │ session  │ 192.0.2.10 │
--   │ 2026-03-02 09:00:00 │ user_signed_in             │       │              │ name     │ 192.0.2.10 │
--   │ 2026-03-02 09:00:01 │ session_created            │       │              │ name     │ 192.0.2.10 │
--   │ 2026-03-02 09:00:02 │ user_banned                │ eve   │              │ name     │ 192.0.2.10 │
--   │ 2026-03-02 09:00:03 │ session_revoked            │ eve   │              │ name     │ 192.0.2.10 │
--   │ 2026-03-02 09:00:04 │ member_added               │       │ acme         │ address  │ 192.0.2.10 │
--   │ 2026-03-02 09:00:05 │ organization_created       │       │ acme         │ name     │ 192.0.2.10 │
--   │ 2026-03-02 10:00:00 │ session_created            │ bob   │              │ name     │ 192.0.2.10 │
--   │ 2026-03-02 10:00:01 │ user_impersonated          │ bob   │              │ name     │ 192.0.2.10 │
--   │ 2026-03-02 10:05:03 │ session_revoked            │ bob   │              │ session  │ 192.0.2.10 │
--   │ 2026-03-02 10:05:04 │ user_impersonation_stopped │ bob   │              │ session  │ 192.0.2.10 │
--   │ 2026-03-02 10:05:05 │ member_role_updated        │ bob   │ acme         │ address  │ 192.0.2.10 │
--   │ 2026-03-02 12:00:05 │ user_signed_in             │       │              │ name     │ ::         │
--   │ 2026-03-02 12:00:06 │ session_created            │       │              │ name     │ ::         │
--   │ 2026-03-02 23:50:00 │ session_created            │ fay   │              │ name     │ 192.0.2.10 │
--   │ 2026-03-02 23:50:01 │ user_impersonated          │ fay   │              │ name     │ 192.0.2.10 │
--   └─────────────────────┴────────────────────────────┴───────┴──────────────┴──────────┴────────────┘
WITH
    {from:DateTime64(3, 'UTC')} AS since,
    {to:DateTime64(3, 'UTC')} AS until,
    actor_id = user_id AND documented_type IN
        ('member_added', 'member_removed', 'member_role_updated', 'team_member_added', 'team_member_removed') AS names_the_member
SELECT
    toDateTime(created_at) AS at,
    if(documented_type != '', documented_type, event_type) AS what,
    if(user_id = {admin:String}, '', user_id) AS about,
    organization_id AS organization,
    known_by,
    replaceOne(toString(ip_address), '::ffff:', '') AS address
FROM
(
    SELECT *, 'name' AS known_by
    FROM audit_events
    WHERE project_id = {project:String} AND created_at >= since AND created_at < until
        AND actor_id = {admin:String} AND event_type != 'user_sign_in_failed' AND NOT names_the_member
    UNION ALL
    SELECT *, 'session'
    FROM audit_events
    WHERE project_id = {project:String} AND created_at >= since AND created_at < until
        AND actor_id != {admin:String}
        AND session_id IN
        (
            SELECT session_id
            FROM audit_events
            WHERE project_id = {project:String} AND created_at >= since - toIntervalDay(1) AND created_at < until
                AND actor_id = {admin:String} AND documented_type = 'user_impersonated'
        )
    UNION ALL
    SELECT *, 'address'
    FROM audit_events
    WHERE project_id = {project:String} AND created_at >= since AND created_at < until
        AND names_the_member AND ip_address != toIPv6('::')
        AND ip_address IN
        (
            SELECT ip_address
            FROM audit_sign_ins
            WHERE project_id = {project:String} AND created_at >= since - toIntervalDay(1) AND created_at < until
                AND user_id = {admin:String} AND success
        )
)
ORDER BY created_at, event_id
