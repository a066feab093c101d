-- Many accounts, one device: from where do several accounts sign in?
--
-- Ask it when trials are abused, or one account was found out: the others are beside it. Address and user
-- agent together are taken for one device; an office whose programs are all alike shows, too.
--
-- Takes, with the values of the sample:
--   project   acme                 the project
--   from      2026-03-01 00:00:00  the time looked at, in UTC
--   to        2026-04-01 00:00:00
--   accounts  3                    at least so many accounts
--
-- Costs the sign-ins of the project between from and to.
-- Reads by: project_id, created_at, by_words
--
-- Sample:
--   ┌─address──────┬─country─┬─accounts─┬─sign_ins─┬─some──────────────────────────────────────┬───────────────first─┬────────────────last─┬─user_agent─────────────┐
--   │ 203.0.113.25 │ PH      │        4 │        5 │ ['trial-1','trial-2','trial-3','trial-4'] │ 2026-03-05 01:00:02 │ 2026-03-05 01:40:16 │ python-requests/2.32.3 │
--   └──────────────┴─────────┴──────────┴──────────┴───────────────────────────────────────────┴─────────────────────┴─────────────────────┴────────────────────────┘
SELECT
    replaceOne(toString(ip_address), '::ffff:', '') AS address,
    any(country_code) AS country,
    uniqExact(user_id) AS accounts,
    count() AS sign_ins,
    arraySlice(arraySort(groupUniqArray(user_id)), 1, 5) AS some,
    toDateTime(min(created_at)) AS first,
    toDateTime(max(created_at)) AS last,
    user_agent
FROM audit_sign_ins
WHERE project_id = {project:String}
    AND created_at >= {from:DateTime64(3, 'UTC')} AND created_at < {to:DateTime64(3, 'UTC')}
    AND success AND ip_address != toIPv6('::')
GROUP BY ip_address, user_agent
HAVING accounts >= {accounts:UInt32}
ORDER BY accounts DESC, address
