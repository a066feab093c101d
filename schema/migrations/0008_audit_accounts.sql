CREATE OR REPLACE VIEW {table}{on_cluster}
(
    project_id          LowCardinality(String)         COMMENT 'Whose user it is',
    user_id             String                         COMMENT 'The user',
    last_identifier     String                         COMMENT 'The e-mail address or name of the user, as it was sent last',
    signed_up_at        Nullable(DateTime64(3, 'UTC')) COMMENT 'When the user signed up; NULL if that is older than the log',
    verified_at         Nullable(DateTime64(3, 'UTC')) COMMENT 'When an e-mail address of the user was verified last',
    last_sign_in_at     Nullable(DateTime64(3, 'UTC')) COMMENT 'When the user signed in last',
    sign_ins            UInt64                         COMMENT 'How often the user signed in',
    failures            UInt64                         COMMENT 'How often it was tried in vain',
    password_changed_at Nullable(DateTime64(3, 'UTC')) COMMENT 'When the password was changed or reset last',
    providers           Array(String)                  COMMENT 'What the user can sign in with: the providers of accounts that were linked and not unlinked, such as credential, google',
    banned_at           Nullable(DateTime64(3, 'UTC')) COMMENT 'When the user was banned last',
    ban_expires_at      Nullable(DateTime64(3, 'UTC')) COMMENT 'When that ban ends by itself, if it does',
    ban_reason          String                         COMMENT 'The reason given for it',
    unbanned_at         Nullable(DateTime64(3, 'UTC')) COMMENT 'When the user was unbanned last',
    is_banned           Bool                           COMMENT 'Whether the last ban holds now',
    deleted_at          Nullable(DateTime64(3, 'UTC')) COMMENT 'When the user was deleted'
)
AS
WITH
    groupArrayIf(
        tuple(created_at, if(data['accountId'] = '', data['providerId'], data['accountId']), data['providerId'], documented_type = 'account_linked'),
        documented_type IN ('account_linked', 'account_unlinked')
    ) AS links,
    arrayFilter(
        link -> link.4 AND NOT arrayExists(later -> later.2 = link.2 AND NOT later.4 AND later.1 >= link.1, links),
        links
    ) AS linked
SELECT
    project_id,
    user_id,
    argMaxIf(identifier, created_at, identifier != '') AS last_identifier,
    minOrNullIf(created_at, documented_type = 'user_signed_up') AS signed_up_at,
    maxOrNullIf(created_at, documented_type = 'user_email_verified') AS verified_at,
    maxOrNullIf(created_at, is_sign_in AND outcome = 'success') AS last_sign_in_at,
    countIf(is_sign_in AND outcome = 'success') AS sign_ins,
    countIf(is_sign_in AND outcome != 'success') AS failures,
    maxOrNullIf(created_at, documented_type IN ('password_changed', 'password_reset_completed')) AS password_changed_at,
    arraySort(arrayDistinct(arrayMap(link -> link.3, linked))) AS providers,
    maxOrNullIf(created_at, documented_type = 'user_banned') AS banned_at,
    -- In a tuple, or a NULL would give way to the end of an earlier ban.
    argMaxIf(tuple(parseDateTime64BestEffortOrNull(data['banExpires'], 3, 'UTC')), created_at, documented_type = 'user_banned').1 AS ban_expires_at,
    argMaxIf(data['banReason'], created_at, documented_type = 'user_banned') AS ban_reason,
    maxOrNullIf(created_at, documented_type = 'user_unbanned') AS unbanned_at,
    banned_at IS NOT NULL
        AND (unbanned_at IS NULL OR unbanned_at < banned_at)
        AND (ban_expires_at IS NULL OR ban_expires_at > now64(3)) AS is_banned,
    maxOrNullIf(created_at, documented_type = 'user_deleted') AS deleted_at
FROM audit_log
-- In events of organizations the user may be an invitation.
WHERE user_id != '' AND (category IN ('user', 'session', 'account', 'verification') OR event_type = 'user_sign_in_failed')
GROUP BY project_id, user_id
COMMENT 'Users, one row each: what became of their accounts. Give a project_id and, by `=`, a user_id: a text index finds the events of the user. Without a user_id all events of the project are read and parsed. Times of the row are results, and narrow nothing'
