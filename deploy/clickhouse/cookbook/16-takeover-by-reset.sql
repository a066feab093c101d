-- Takeover by reset: after which password resets was the e-mail address changed, or signed in from a new address?
--
-- Ask it once a day: who reads somebody's mail resets the password, comes in from elsewhere, and takes the
-- address away. The plugin reports a changed address as profile_updated with the field newEmail.
--
-- Takes, with the values of the sample:
--   project  acme                 the project
--   from     2026-03-02 00:00:00  resets completed in this time, in UTC
--   to       2026-03-03 00:00:00
--   hours    24                   what happened so many hours after the reset
--   days     90                   so many days before from count as what a user is used to
--
-- Costs the events of the project from from to the hours after to, and its sign-ins of the days before.
-- Reads by: project_id, created_at, by_words
--
-- Sample:
--   ┌─user_id─┬────────────reset_at─┬─reset_from───┬─minutes_later─┬─what─────────────────────────┬─address──────┬─country─┬─session_id─┐
--   │ ann     │ 2026-03-02 02:02:01 │ 203.0.113.90 │             1 │ signed in from a new address │ 203.0.113.90 │ RU      │ s-thief    │
--   │ ann     │ 2026-03-02 02:02:01 │ 203.0.113.90 │             5 │ changed the e-mail address   │ 203.0.113.90 │ RU      │            │
--   └─────────┴─────────────────────┴──────────────┴───────────────┴──────────────────────────────┴──────────────┴─────────┴────────────┘
WITH
    {from:DateTime64(3, 'UTC')} AS since,
    {to:DateTime64(3, 'UTC')} AS until,
    resets AS
    (
        SELECT user_id, created_at, ip_address
        FROM audit_log
        WHERE project_id = {project:String} AND created_at >= since AND created_at < until
            AND documented_type = 'password_reset_completed'
    ),
    used AS
    (
        SELECT user_id, ip_address, min(created_at) AS first
        FROM audit_sign_ins
        WHERE project_id = {project:String} AND success
            AND created_at >= since - toIntervalDay({days:UInt32}) AND created_at < until + toIntervalHour({hours:UInt32})
        GROUP BY user_id, ip_address
    )
SELECT
    r.user_id AS user_id,
    toDateTime(r.created_at) AS reset_at,
    replaceOne(toString(r.ip_address), '::ffff:', '') AS reset_from,
    dateDiff('minute', r.created_at, e.created_at) AS minutes_later,
    if(e.documented_type = 'user_signed_in', 'signed in from a new address', 'changed the e-mail address') AS what,
    replaceOne(toString(e.ip_address), '::ffff:', '') AS address,
    e.country_code AS country,
    e.session_id AS session_id
FROM audit_log AS e
INNER JOIN resets AS r ON e.user_id = r.user_id
LEFT JOIN used AS u ON u.user_id = e.user_id AND u.ip_address = e.ip_address
WHERE e.project_id = {project:String}
    AND e.created_at >= since AND e.created_at < until + toIntervalHour({hours:UInt32})
    AND e.created_at >= r.created_at AND e.created_at < r.created_at + toIntervalHour({hours:UInt32})
    AND (e.documented_type = 'user_signed_in' AND u.first >= r.created_at
        OR e.event_type = 'email_changed'
        OR e.documented_type = 'user_profile_updated'
            AND hasAny(JSONExtract(e.data['updatedFields'], 'Array(String)'), ['email', 'newEmail']))
ORDER BY r.created_at, r.user_id, e.created_at, e.event_id
