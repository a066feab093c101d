-- Long sessions: which lived, or may still live, longer than they should?
--
-- Ask it once a week. A session that expires makes no event: of a row without an end nothing is known but
-- that nobody ended it. One that was ended after so long did live: its lifetime is renewed by use.
--
-- Takes, with the values of the sample:
--   project  acme                 the project
--   at       2026-03-31 00:00:00  as of this time, in UTC
--   days     14                   longer than so many days
--
-- Costs the beginnings of sessions before at, and all events of the project for their ends.
-- Reads by: project_id
--
-- Sample:
--   ┌─user_id─┬─session_id──┬───────────────since─┬─ended───────┬─days─┬─login_method─┬─address────┬─country─┐
--   │ ann     │ s-forgotten │ 2026-03-01 08:00:01 │ no end seen │   30 │ email        │ 192.0.2.10 │ DE      │
--   │ bob     │ s-long      │ 2026-03-02 08:00:01 │ signed_out  │   18 │ email        │ 192.0.2.10 │ DE      │
--   └─────────┴─────────────┴─────────────────────┴─────────────┴──────┴──────────────┴────────────┴─────────┘
WITH {at:DateTime64(3, 'UTC')} AS date
SELECT
    user_id,
    session_id,
    toDateTime(started_at) AS since,
    if(ended_at < date, ended_by, 'no end seen') AS ended,
    dateDiff('day', started_at, least(ifNull(ended_at, date), date)) AS days,
    login_method,
    replaceOne(toString(ip_address), '::ffff:', '') AS address,
    country_code AS country
FROM audit_sessions
WHERE project_id = {project:String}
    AND started_at < date - toIntervalDay({days:UInt32})
    AND (ended_at IS NULL OR ended_at > started_at + toIntervalDay({days:UInt32}))
ORDER BY days DESC, user_id, session_id
