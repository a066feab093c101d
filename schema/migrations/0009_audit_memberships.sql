CREATE OR REPLACE VIEW {table}{on_cluster}
(
    project_id      LowCardinality(String)         COMMENT 'Whose organization it is',
    organization_id String                         COMMENT 'The organization',
    user_id         String                         COMMENT 'The member',
    identifier      String                         COMMENT 'E-mail address or name of the member then',
    role            String                         COMMENT 'The role in this period',
    joined_at       DateTime64(3, 'UTC')           COMMENT 'When the period begins: with joining, or with a new role',
    left_at         Nullable(DateTime64(3, 'UTC')) COMMENT 'When it ends; NULL if it has not',
    ended_by        String                         COMMENT 'removed, role_changed, rejoined, user_deleted; empty if it has not ended',
    added_by        String                         COMMENT 'Who let the member in: the inviter, the creator, or who added the member, which the plugin does not say; empty if not known',
    how             String                         COMMENT 'How the member got in: created, added, invited; empty if that is older than the log'
)
AS
WITH
    deleted.at >= period.begin.at AND (period.next_at IS NULL OR deleted.at < period.next_at) AS was_deleted
SELECT
    period.project_id AS project_id,
    period.organization_id AS organization_id,
    period.user_id AS user_id,
    period.begin.identifier AS identifier,
    period.begin.role AS role,
    period.begin.at AS joined_at,
    if(was_deleted, deleted.at, period.next_at) AS left_at,
    multiIf(
        was_deleted, 'user_deleted',
        period.next_at IS NULL, '',
        period.next_type = 'member_removed', 'removed',
        period.next_type = 'member_role_updated', 'role_changed',
        'rejoined') AS ended_by,
    multiIf(
        how = 'created', period.user_id,
        invitation.inviter != '', ifNull(invitation.inviter, ''),
        period.joining.actor_id = period.user_id, '',
        period.joining.actor_id) AS added_by,
    multiIf(
        period.joining.type = 'invite_accepted', 'invited',
        period.joining.type = '', '',
        period.is_first AND creation.by_user, 'created',
        'added') AS how
FROM
(
    WITH
        CAST(history, 'Array(Tuple(at DateTime64(3, \'UTC\'), type String, role String, identifier String, actor_id String, invitation_id String))') AS events,
        arrayFilter(event -> event.type IN ('member_added', 'invite_accepted'), events) AS joinings
    SELECT
        project_id,
        organization_id,
        user_id,
        events[place] AS begin,
        if(place < length(events), toNullable(events[place + 1].at), NULL) AS next_at,
        if(place < length(events), events[place + 1].type, '') AS next_type,
        arrayLast(event -> event.at <= begin.at, joinings) AS joining,
        joining.invitation_id AS invitation_id,
        joining.at = joinings[1].at AS is_first
    FROM
    (
        SELECT
            project_id,
            organization_id,
            user_id,
            arraySort(groupArray(tuple(
                created_at,
                documented_type,
                multiIf(
                    documented_type = 'member_role_updated', data['newRole'],
                    documented_type = 'invite_accepted' AND data['memberRole'] != '', data['memberRole'],
                    documented_type = 'invite_accepted' AND data['inviteeRole'] != '', data['inviteeRole'],
                    data['role']),
                identifier,
                actor_id,
                data['inviteeId']))) AS history
        FROM audit_log
        WHERE documented_type IN ('member_added', 'invite_accepted', 'member_role_updated', 'member_removed')
            AND organization_id != '' AND user_id != ''
        GROUP BY project_id, organization_id, user_id
    )
    ARRAY JOIN arrayEnumerate(history) AS place
    WHERE begin.type != 'member_removed'
) AS period
LEFT JOIN
(
    -- Of an accepted invitation the plugin says who accepted it, and its id; who sent it is said before.
    SELECT project_id, organization_id, data['inviteeId'] AS invitation_id, any(if(data['inviterId'] = '', actor_id, data['inviterId'])) AS inviter
    FROM audit_log
    WHERE documented_type = 'member_invited' AND invitation_id != ''
    GROUP BY project_id, organization_id, invitation_id
) AS invitation
    ON period.project_id = invitation.project_id AND period.organization_id = invitation.organization_id AND period.invitation_id = invitation.invitation_id
LEFT JOIN
(
    SELECT project_id, organization_id, if(actor_id = '', user_id, actor_id) AS creator, true AS by_user
    FROM audit_events
    WHERE documented_type = 'organization_created'
    GROUP BY project_id, organization_id, creator
) AS creation
    ON period.project_id = creation.project_id AND period.organization_id = creation.organization_id AND period.user_id = creation.creator
LEFT JOIN
(
    SELECT project_id, user_id, max(toNullable(created_at)) AS at
    FROM audit_events
    WHERE documented_type = 'user_deleted'
    GROUP BY project_id, user_id
) AS deleted
    ON period.project_id = deleted.project_id AND period.user_id = deleted.user_id
COMMENT 'Who belonged to which organization as what, and when, one row for each period of one role. Who had access at t: WHERE joined_at <= t AND (left_at IS NULL OR left_at > t). Give a project_id and, by `=`, an organization_id or a user_id: text indexes find their events. Times narrow nothing, because a period is known only with all before it'
