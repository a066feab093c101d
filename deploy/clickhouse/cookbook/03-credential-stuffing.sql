-- Credential stuffing that worked: which accounts were signed in to from an address that had failed on many others?
--
-- Ask it when 01 or 02 answers. These accounts are taken over: revoke the session, reset the password.
-- An address from which the account had signed in in the days before is its own, and left out.
--
-- Takes, with the values of the sample:
--   project   acme                 the project
--   from      2026-03-02 00:00:00  the time looked at, in UTC
--   to        2026-03-03 00:00:00
--   accounts  5                    the address had failed on at least so many other accounts since from
--   days      30                   so many days before from count as what an account is used to
--
-- Costs the sign-ins of the project between from and to, and those of the days before.
-- Reads by: project_id, created_at, by_words
--
-- Sample:
--   ┌────────signed_in_at─┬─user_id─┬─identifier───────┬─address──────┬─country─┬─others_failed─┬─session_id─┐
--   │ 2026-03-02 02:00:07 │ emil    │ emil@example.com │ 203.0.113.30 │ BR      │             5 │ s-emil-2   │
--   │ 2026-03-02 02:00:10 │ fay     │ fay@example.com  │ 203.0.113.30 │ BR      │             5 │ s-fay      │
--   └─────────────────────┴─────────┴──────────────────┴──────────────┴─────────┴───────────────┴────────────┘
WITH
    {from:DateTime64(3, 'UTC')} AS since,
    sign_ins AS
    (
        SELECT
            *,
            uniqExactIf(identifier, NOT success) OVER
            (
                PARTITION BY ip_address
                ORDER BY created_at, event_id
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            )
            - maxIf(1, NOT success) OVER
            (
                PARTITION BY ip_address, identifier
                ORDER BY created_at, event_id
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            ) AS others_failed
        FROM audit_sign_ins
        WHERE project_id = {project:String}
            AND created_at >= since AND created_at < {to:DateTime64(3, 'UTC')}
            AND ip_address != toIPv6('::')
    )
SELECT
    toDateTime(created_at) AS signed_in_at,
    user_id,
    identifier,
    replaceOne(toString(ip_address), '::ffff:', '') AS address,
    country_code AS country,
    others_failed,
    session_id
FROM sign_ins
WHERE success AND others_failed >= {accounts:UInt32}
    AND (user_id, ip_address) NOT IN
    (
        SELECT user_id, ip_address
        FROM audit_sign_ins
        WHERE project_id = {project:String}
            AND created_at >= since - toIntervalDay({days:UInt32}) AND created_at < since
            AND success
    )
ORDER BY created_at, event_id
