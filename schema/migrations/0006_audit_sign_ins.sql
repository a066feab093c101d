CREATE OR REPLACE VIEW {table}{on_cluster}
(
    project_id      LowCardinality(String) COMMENT 'Whose event it is',
    created_at      DateTime64(3, 'UTC')   COMMENT 'When it was tried',
    event_id        UUID                   COMMENT 'The event that says so',
    event_type      LowCardinality(String) COMMENT 'Its type, as it was sent',
    user_id         String                 COMMENT 'Who signed in, or whose account it was tried with; empty if there is none',
    identifier      String                 COMMENT 'The e-mail address or name of that user, or the one that was tried',
    success         Bool                   COMMENT 'Whether it worked',
    outcome         LowCardinality(String) COMMENT 'success, failure, blocked, challenged',
    login_method    String                 COMMENT 'email, passkey, magic-link, google …; empty if not known',
    reason          String                 COMMENT 'Why it failed, if the source says so; the plugin does not',
    ip_address      IPv6                   COMMENT 'The address of the client, IPv4 mapped; :: if not given',
    city            LowCardinality(String) COMMENT 'The city of the client',
    country         LowCardinality(String) COMMENT 'The country of the client',
    country_code    LowCardinality(String) COMMENT 'The country of the client, ISO 3166-1 alpha-2',
    user_agent      LowCardinality(String) COMMENT 'The user agent of the client',
    session_id      String                 COMMENT 'The session that was begun',
    organization_id String                 COMMENT 'The organization, if the event names one'
)
AS SELECT
    project_id,
    created_at,
    event_id,
    event_type,
    user_id,
    identifier,
    outcome = 'success' AS success,
    outcome,
    login_method,
    data['reason'] AS reason,
    ip_address,
    city,
    country,
    country_code,
    user_agent,
    session_id,
    organization_id
FROM
(
    SELECT * FROM audit_log WHERE event_type IN ('user_signed_in', 'user_sign_in_failed')
    UNION ALL
    -- The index of words knows the few sessions whose data has to be read for is_sign_in. U is the word of
    -- data in which words may be hidden.
    SELECT * FROM audit_log
    WHERE event_type = 'session_created' AND is_sign_in AND hasAnyTokens(words, ['magic', 'phone', 'device', 'siwe', 'U'])
)
COMMENT 'Attempts to sign in, one row each: user_signed_in, user_sign_in_failed, and a session_created by magic link, phone, device code or wallet, beside which the plugin sends no user_signed_in. What a security check blocked before is in audit_security_events. Give a project_id and a time; `=` on user_id, identifier, session_id and organization_id use text indexes. Only login_method and reason read event_data'
