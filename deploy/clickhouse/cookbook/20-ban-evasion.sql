-- Bans that do not hold: which banned users are still active, and which accounts appeared on their devices?
--
-- Ask it once a day. A ban ends the sessions, so what the account does afterwards should not be possible.
-- An account that appears on the same address with the same user agent after the ban is most likely the
-- same person, except in an office; one that was there before is left out.
--
-- Takes, with the values of the sample:
--   project  acme                 the project
--   from     2026-03-02 00:00:00  bans and sign-ins in this time, in UTC
--   to       2026-04-01 00:00:00
--   days     30                   devices the user had so many days before from count as theirs
--
-- Costs the events of the project between from and to, and twice its sign-ins with those of the days before.
-- Reads by: project_id, created_at, by_words
--
-- Sample:
--   ┌─banned_user─┬───────────banned_at─┬─account─┬──────────────────at─┬─what───────────────────────────┬─address──────┐
--   │ eve         │ 2026-03-02 09:00:00 │ eve     │ 2026-03-02 09:30:00 │ user_profile_updated           │ 203.0.113.45 │
--   │ eve         │ 2026-03-02 09:00:00 │ eve-2   │ 2026-03-03 10:00:02 │ another account on this device │ 203.0.113.45 │
--   │ eve         │ 2026-03-02 09:00:00 │ eve     │ 2026-03-05 12:00:00 │ user_signed_in                 │ 203.0.113.47 │
--   │ eve         │ 2026-03-02 09:00:00 │ eve     │ 2026-03-05 12:00:01 │ session_created                │ 203.0.113.47 │
--   │ eve         │ 2026-03-02 09:00:00 │ kim     │ 2026-03-06 12:00:00 │ another account on this device │ 203.0.113.47 │
--   └─────────────┴─────────────────────┴─────────┴─────────────────────┴────────────────────────────────┴──────────────┘
WITH
    {from:DateTime64(3, 'UTC')} AS since,
    {to:DateTime64(3, 'UTC')} AS until,
    bans AS
    (
        SELECT
            ban.user_id AS user_id,
            ban.created_at AS begins,
            arrayMin([
                ifNull(parseDateTime64BestEffortOrNull(ban.data['banExpires'], 3, 'UTC'), until),
                if(unban.created_at > ban.created_at, unban.created_at, until)]) AS ends
        FROM audit_log AS ban
        ASOF LEFT JOIN
        (
            SELECT user_id, created_at
            FROM audit_events
            WHERE project_id = {project:String} AND created_at >= since AND created_at < until
                AND documented_type = 'user_unbanned'
        ) AS unban ON unban.user_id = ban.user_id AND unban.created_at > ban.created_at
        WHERE ban.project_id = {project:String} AND ban.created_at >= since AND ban.created_at < until
            AND ban.documented_type = 'user_banned'
    ),
    devices AS
    (
        SELECT user_id, ip_address, user_agent, min(created_at) AS first
        FROM audit_sign_ins
        WHERE project_id = {project:String} AND success AND ip_address != toIPv6('::')
            AND created_at >= since - toIntervalDay({days:UInt32}) AND created_at < until
        GROUP BY user_id, ip_address, user_agent
    )
SELECT
    banned_user,
    toDateTime(begins) AS banned_at,
    account,
    toDateTime(created_at) AS at,
    what,
    replaceOne(toString(ip_address), '::ffff:', '') AS address
FROM
(
    SELECT
        b.user_id AS banned_user,
        b.begins AS begins,
        e.user_id AS account,
        e.created_at AS created_at,
        if(e.documented_type != '', e.documented_type, e.event_type) AS what,
        e.ip_address AS ip_address
    FROM audit_events AS e
    INNER JOIN bans AS b ON b.user_id = e.actor_id
    WHERE e.project_id = {project:String} AND e.created_at >= since AND e.created_at < until
        AND e.created_at > b.begins AND e.created_at < b.ends AND e.outcome = 'success'
    UNION ALL
    SELECT b.user_id, b.begins, other.user_id, other.first, 'another account on this device', other.ip_address
    FROM devices AS other
    INNER JOIN devices AS own ON own.ip_address = other.ip_address AND own.user_agent = other.user_agent
    INNER JOIN bans AS b ON b.user_id = own.user_id
    WHERE other.first > own.first AND other.first > b.begins AND other.first < b.ends
)
ORDER BY begins, banned_user, created_at, account
