-- Open invitations: which were neither accepted nor rejected nor cancelled?
--
-- Ask it once a month: who has such a link, may still walk in, unless it expired, which makes no event. The
-- last thing that happened between an organization and an address counts, so an older invitation is not
-- open when a newer one was accepted.
--
-- Takes, with the values of the sample:
--   project  acme                 the project
--   at       2026-03-31 00:00:00  as of this time, in UTC
--   days     7                    open for at least so many days
--
-- Costs all events of the project before at; the data of those about invitations.
-- Reads by: project_id, created_at
--
-- Sample:
--   ┌─organization─┬─email────────────┬─role───┬─invited_by─┬──────────invited_at─┬─days_open─┬─times─┐
--   │ acme         │ bob@example.com  │ admin  │ ann        │ 2026-03-02 09:00:00 │        29 │     1 │
--   │ acme         │ dora@example.com │ member │ ann        │ 2026-03-05 09:00:00 │        26 │     3 │
--   │ acme         │ carl@example.com │ admin  │ ann        │ 2026-03-16 09:00:00 │        15 │     2 │
--   └──────────────┴──────────────────┴────────┴────────────┴─────────────────────┴───────────┴───────┘
WITH {at:DateTime64(3, 'UTC')} AS date
SELECT
    organization_id AS organization,
    data['inviteeEmail'] AS email,
    argMax(data['inviteeRole'], (created_at, event_id)) AS role,
    argMax(actor_id, (created_at, event_id)) AS invited_by,
    toDateTime(max(created_at)) AS invited_at,
    dateDiff('day', max(created_at), date) AS days_open,
    count() AS times
FROM audit_log
WHERE project_id = {project:String} AND created_at < date
    AND documented_type IN ('member_invited', 'invite_accepted', 'invite_rejected', 'invite_cancelled')
GROUP BY organization_id, email
HAVING argMax(documented_type, (created_at, event_id)) = 'member_invited'
    AND max(created_at) <= date - toIntervalDay({days:UInt32})
ORDER BY days_open DESC, organization, email
