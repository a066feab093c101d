CREATE OR REPLACE VIEW {table}{on_cluster}
(
    project_id      LowCardinality(String) COMMENT 'Whose event it is',
    created_at      DateTime64(3, 'UTC')   COMMENT 'When it happened',
    event_id        UUID                   COMMENT 'The event',
    event_type      LowCardinality(String) COMMENT 'What happened, as it was sent: security_check, security_signal, or a documented type',
    documented_type LowCardinality(String) COMMENT 'What happened, as Better Auth documents it; empty for a check that was passed without a challenge or led to one, and for a device not known',
    verdict         String                 COMMENT 'blocked, challenged, allowed; signal for what was only noticed',
    name            String                 COMMENT 'Which check decided, or what was noticed: impossible_travel, compromised_password …',
    reason          String                 COMMENT 'Why, in a word or sentence of the source',
    visitor_id      String                 COMMENT 'The visitor, which is a browser; empty if not known',
    ip_address      IPv6                   COMMENT 'The address of the client, IPv4 mapped; :: if not given',
    city            LowCardinality(String) COMMENT 'The city of the client',
    country         LowCardinality(String) COMMENT 'The country of the client',
    country_code    LowCardinality(String) COMMENT 'The country of the client, ISO 3166-1 alpha-2',
    user_agent      LowCardinality(String) COMMENT 'The user agent of the client',
    user_id         String                 COMMENT 'The user, if known',
    identifier      String                 COMMENT 'The e-mail address or name that was given',
    path            String                 COMMENT 'The route that was asked for',
    confidence      String                 COMMENT 'How sure the check is, if it says so: a number, or a word such as high',
    details         String                 COMMENT 'What else the check says, a JSON object; of a signal it is all of its data',
    evaluated       Array(String)          COMMENT 'The checks that were made'
)
AS
WITH
    if(event_type = 'security_signal', event_data, data['details']) AS all_details
SELECT
    project_id,
    created_at,
    event_id,
    event_type,
    documented_type,
    multiIf(
        outcome IN ('blocked', 'challenged'), toString(outcome),
        event_type = 'security_check' OR documented_type = 'security_allowed', 'allowed',
        'signal') AS verdict,
    multiIf(
        data['type'] != '', data['type'],
        data['triggeredBy'] NOT IN ('', 'unknown'), data['triggeredBy'],
        event_type IN ('security_check', 'security_signal'), '',
        replaceOne(event_type, 'security_', '')) AS name,
    data['reason'] AS reason,
    -- Of a check the key is its visitor, or the address if there is none.
    multiIf(
        data['visitorId'] != '', data['visitorId'],
        event_type != 'security_check' OR event_key = 'unknown' OR isIPv4String(event_key) OR isIPv6String(event_key), '',
        event_key) AS visitor_id,
    ip_address,
    city,
    country,
    country_code,
    user_agent,
    user_id,
    identifier,
    data['path'] AS path,
    if(data['confidence'] = '', JSONExtractString(data['details'], 'confidence'), data['confidence']) AS confidence,
    all_details AS details,
    JSONExtract(data['evaluatedChecks'], 'Array(String)') AS evaluated
FROM audit_log
WHERE startsWith(event_type, 'security_')
COMMENT 'What security checks decided or noticed. Give a project_id and a time; `=` on user_id and identifier use text indexes. All but the plain columns parse event_data'
