-- Password spraying: which addresses try a few passwords on many accounts?
--
-- Ask it once a day: each account sees too few failures for a limit of its own, so nothing else tells.
-- An office or a mobile carrier behind one address has failures, too, but more sign-ins that succeed: it
-- is left out. A spray from many addresses, a few tries each, does not show here, but in 13.
--
-- Takes, with the values of the sample:
--   project   acme                 the project
--   from      2026-03-02 00:00:00  the time looked at, in UTC
--   to        2026-03-03 00:00:00
--   accounts  8                    failures on at least so many accounts …
--   tries     3                    … and on each of them at most so many
--
-- Costs the sign-ins of the project between from and to.
-- Reads by: project_id, created_at, by_words
--
-- Sample:
--   ┌─address─────┬─country─┬─accounts─┬─do_not_exist─┬─failures─┬─got_in_as────────────┬───────────────first─┬────────────────last─┐
--   │ 203.0.113.9 │ VN      │       10 │            2 │       20 │ ['hana@example.com'] │ 2026-03-02 01:00:00 │ 2026-03-02 06:00:00 │
--   └─────────────┴─────────┴──────────┴──────────────┴──────────┴──────────────────────┴─────────────────────┴─────────────────────┘
WITH tried AS
(
    SELECT
        ip_address,
        identifier,
        any(country_code) AS country_code,
        countIf(NOT success) AS failed,
        countIf(success) AS succeeded,
        any(user_id) = '' AS no_such_account,
        min(created_at) AS first,
        max(created_at) AS last
    FROM audit_sign_ins
    WHERE project_id = {project:String}
        AND created_at >= {from:DateTime64(3, 'UTC')} AND created_at < {to:DateTime64(3, 'UTC')}
        AND ip_address != toIPv6('::')
    GROUP BY ip_address, identifier
)
SELECT
    replaceOne(toString(ip_address), '::ffff:', '') AS address,
    any(country_code) AS country,
    countIf(failed > 0) AS accounts,
    countIf(no_such_account) AS do_not_exist,
    sum(failed) AS failures,
    arraySort(groupArrayIf(5)(identifier, succeeded > 0)) AS got_in_as,
    toDateTime(min(first)) AS first,
    toDateTime(max(last)) AS last
FROM tried
GROUP BY ip_address
HAVING accounts >= {accounts:UInt32} AND max(failed) <= {tries:UInt32} AND failures > sum(succeeded)
ORDER BY accounts DESC, address
