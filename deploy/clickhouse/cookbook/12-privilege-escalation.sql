-- More rights: who became owner or admin of an organization, and who may have made them?
--
-- Ask it once a day. Only an invitation tells who gave the role. For a changed role or an added member the
-- plugin names the member, so the answer lists who had last signed in from the address of the request: if
-- that is the member alone, they may have done it themselves. Founders are left out.
--
-- Takes, with the values of the sample:
--   project  acme                 the project
--   from     2026-03-02 00:00:00  the time looked at, in UTC
--   to       2026-03-03 00:00:00
--   hours    24                   who signed in from the address so many hours before may have done it
--
-- Costs the events of the project between from and to, its sign-ins of the hours before, and all before to for
-- the invitations.
-- Reads by: project_id, created_at, by_words
--
-- Sample:
--   ┌──────────────────at─┬─organization─┬─user_id─┬─how─────────────────┬─old_role─┬─new_role──────┬─invited_by─┬─same_address─┬─address──────┐
--   │ 2026-03-02 09:00:00 │ acme         │ carl    │ member_role_updated │ member   │ admin         │            │ ['ann']      │ 192.0.2.10   │
--   │ 2026-03-02 10:00:00 │ acme         │ bob     │ member_role_updated │ admin    │ owner         │            │ ['bob']      │ 198.51.100.8 │
--   │ 2026-03-02 11:00:00 │ acme         │ dora    │ invite_accepted     │          │ admin         │ ann        │ []           │ 198.51.100.9 │
--   │ 2026-03-02 12:00:00 │ acme         │ emil    │ member_added        │          │ admin,billing │            │ ['ann']      │ 192.0.2.10   │
--   │ 2026-03-02 17:00:00 │ acme         │ gus     │ member_role_updated │ member   │ owner         │            │ []           │ ::           │
--   └─────────────────────┴──────────────┴─────────┴─────────────────────┴──────────┴───────────────┴────────────┴──────────────┴──────────────┘
WITH
    {from:DateTime64(3, 'UTC')} AS since,
    {to:DateTime64(3, 'UTC')} AS until,
    gained AS
    (
        SELECT
            created_at,
            event_id,
            organization_id,
            user_id,
            documented_type AS how,
            data['oldRole'] AS old_role,
            multiIf(
                how = 'invite_accepted', data['memberRole'],
                how = 'member_role_updated', data['newRole'],
                data['role']) AS new_role,
            if(how = 'invite_accepted', data['inviteeId'], '') AS invitation,
            ip_address
        FROM audit_log
        WHERE project_id = {project:String} AND created_at >= since AND created_at < until
            AND documented_type IN ('member_added', 'invite_accepted', 'member_role_updated')
            AND arrayMax(role -> indexOf(['admin', 'owner'], role), splitByChar(',', new_role))
                > arrayMax(role -> indexOf(['admin', 'owner'], role), splitByChar(',', old_role))
            AND (organization_id, user_id) NOT IN
            (
                SELECT organization_id, actor_id
                FROM audit_log
                WHERE project_id = {project:String} AND created_at >= since AND created_at < until + toIntervalMinute(1)
                    AND documented_type = 'organization_created'
            )
    ),
    invited AS
    (
        SELECT data['inviteeId'] AS invitation, any(actor_id) AS inviter
        FROM audit_log
        WHERE project_id = {project:String} AND created_at < until AND documented_type = 'member_invited'
        GROUP BY invitation
    ),
    signed_in AS
    (
        SELECT user_id, ip_address, created_at
        FROM audit_sign_ins
        WHERE project_id = {project:String}
            AND created_at >= since - toIntervalHour({hours:UInt32}) AND created_at < until
            AND success AND ip_address != toIPv6('::')
    )
SELECT
    toDateTime(g.created_at) AS at,
    g.organization_id AS organization,
    g.user_id AS user_id,
    any(g.how) AS how,
    any(g.old_role) AS old_role,
    any(g.new_role) AS new_role,
    any(i.inviter) AS invited_by,
    arraySort(groupUniqArrayIf(s.user_id,
        s.created_at <= g.created_at AND s.created_at >= g.created_at - toIntervalHour({hours:UInt32}))) AS same_address,
    replaceOne(toString(any(g.ip_address)), '::ffff:', '') AS address
FROM gained AS g
LEFT JOIN invited AS i ON i.invitation = g.invitation
LEFT JOIN signed_in AS s ON s.ip_address = g.ip_address
GROUP BY g.created_at, g.event_id, g.organization_id, g.user_id
ORDER BY g.created_at, g.event_id
