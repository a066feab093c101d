-- Access on a date: who was a member of an organization at a point in time, and in which role?
--
-- Ask it in an audit, or to know who may have seen what leaked. A user who was deleted had no access any more;
-- Better Auth reports no end of the membership then. What was stored before the log began is not in it.
--
-- Takes, with the values of the sample:
--   project       acme                 the project
--   organization  org-1                the organization
--   at            2026-03-10 12:00:00  the point in time, in UTC
--
-- Costs the events of the organization, and all deletions of users of the project.
-- Reads by: project_id, by_organization_id
--
-- Sample:
--   ┌─user_id─┬─identifier───────┬─role───┬───────────────since─┬─how─────┬─added_by─┐
--   │ ann     │ ann@example.com  │ owner  │ 2026-03-01 09:00:00 │ created │ ann      │
--   │ bob     │ bob@example.com  │ admin  │ 2026-03-05 09:00:00 │ added   │          │
--   │ carl    │ carl@example.com │ member │ 2026-03-04 09:00:00 │ invited │ ann      │
--   │ dora    │ dora@example.com │ member │ 2026-03-09 10:00:00 │ added   │          │
--   └─────────┴──────────────────┴────────┴─────────────────────┴─────────┴──────────┘
SELECT
    user_id,
    identifier,
    role,
    toDateTime(joined_at) AS since,
    how,
    added_by
FROM audit_memberships
WHERE project_id = {project:String} AND organization_id = {organization:String}
    AND joined_at <= {at:DateTime64(3, 'UTC')} AND (left_at IS NULL OR left_at > {at:DateTime64(3, 'UTC')})
ORDER BY user_id
