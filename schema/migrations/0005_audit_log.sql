CREATE OR REPLACE VIEW {table}{on_cluster}
(
    project_id         LowCardinality(String) COMMENT 'Whose event it is; from the API key',
    event_id           UUID                   COMMENT 'Identity of the event, mostly a UUIDv7',
    event_type         LowCardinality(String) COMMENT 'What happened, as it was sent',
    documented_type    LowCardinality(String) COMMENT 'What happened, as Better Auth documents it; empty if it does not',
    category           LowCardinality(String) COMMENT 'The group it is documented in: user, session, account, verification, organization, security; empty if it is not documented',
    event_key          String                 COMMENT 'What it happened to; events of one key keep their order',
    event_display_name String                 COMMENT 'A sentence for people',
    user_id            String                 COMMENT 'The user it is about',
    organization_id    String                 COMMENT 'The organization it is about',
    identifier         String                 COMMENT 'E-mail address or name of that user',
    actor_id           String                 COMMENT 'Who did it',
    actor_type         LowCardinality(String) COMMENT 'In which role: user, admin, dashboard, organization',
    outcome            LowCardinality(String) COMMENT 'How it ended: success, failure, blocked, challenged',
    session_id         String                 COMMENT 'The session it happened in',
    request_id         String                 COMMENT 'The request it happened in',
    ip_address         IPv6                   COMMENT 'The address of the client, IPv4 mapped; :: if not given',
    city               LowCardinality(String) COMMENT 'The city of the client',
    country            LowCardinality(String) COMMENT 'The country of the client',
    country_code       LowCardinality(String) COMMENT 'The country of the client, ISO 3166-1 alpha-2',
    user_agent         LowCardinality(String) COMMENT 'The user agent of the client',
    event_data         String                 COMMENT 'Everything, as it was sent: a JSON object',
    data               Map(String, String)    COMMENT 'The members of event_data: texts as they are, all else as JSON, null left out; data[''role'']',
    login_method       String                 COMMENT 'How the session was begun: email, passkey, magic-link, google …; empty if not known',
    is_sign_in         Bool                   COMMENT 'Whether it is an attempt to sign in: a row of audit_sign_ins',
    created_at         DateTime64(3, 'UTC')   COMMENT 'When it happened, at the source',
    logged_at          DateTime64(3, 'UTC')   COMMENT 'When Kafka took it',
    ingested_at        DateTime64(3, 'UTC')   COMMENT 'When the consumer sent the row, on the clock of ClickHouse',
    source_incarnation UInt32                 COMMENT 'Position: which life of the topic',
    source_partition   UInt32                 COMMENT 'Position: the partition',
    source_offset      UInt64                 COMMENT 'Position: the offset',
    words              String                 COMMENT 'The display name and the data in small letters: hasAllTokens(words, [''passkey''])'
)
AS
-- The engine's parser refuses numbers beyond 64 bits or a double, and halves of surrogate pairs, and
-- then gives nothing of the whole document. Only in such documents numbers are made texts, and
-- surrogates U+FFFD.
WITH
    arrayMap(
        token -> if(match(token, '^[-0-9]'), concat('"', token, '"'), token),
        extractAll(event_data, '"(?:[^"\\\\]|\\\\.)*"|-?[0-9][0-9.eE+-]*|[^"0-9-]+')
    ) AS numbers_as_texts,
    arrayMap(
        token -> if(match(token, '^\\\\u[dD][89a-fA-F]'), '\\ufffd', token),
        extractAll(arrayStringConcat(numbers_as_texts), '\\\\u[dD][89a-fA-F]..|\\\\.|[^\\\\]+')
    ) AS surrogates_replaced,
    if(isValidJSON(event_data), event_data, arrayStringConcat(surrogates_replaced)) AS parsable
SELECT
    project_id,
    event_id,
    event_type,
    documented_type,
    {category} AS category,
    event_key,
    event_display_name,
    user_id,
    organization_id,
    identifier,
    actor_id,
    actor_type,
    outcome,
    session_id,
    request_id,
    ip_address,
    city,
    country,
    country_code,
    user_agent,
    event_data,
    -- Of several members of one name the last counts, and a map gives the first.
    CAST(arrayReverse(JSONExtractKeysAndValues(parsable, 'String')), 'Map(String, String)') AS data,
    if(data['loginMethod'] = 'unknown', '', data['loginMethod']) AS login_method,
    -- The plugin says user_signed_in only of some ways to sign in; of these others it says no more
    -- than that a session was created.
    event_type IN ('user_signed_in', 'user_sign_in_failed')
        OR (event_type = 'session_created' AND login_method IN ('magic-link', 'phone', 'device-code', 'siwe')) AS is_sign_in,
    created_at,
    logged_at,
    ingested_at,
    source_incarnation,
    source_partition,
    source_offset,
    words
FROM audit_events
COMMENT 'Every event, with its category and its data taken apart. Give a project_id and a time: the key is project_id, created_at, event_id. `=` on user_id, organization_id, identifier, actor_id, session_id, request_id, event_key and toString(ip_address), and hasAllTokens(words, …), use text indexes, event_id a bloom filter. How many there are of an event_type, documented_type, category, outcome, country or country_code of a project, without a time, is answered by the projection by_kind. data, login_method and is_sign_in read and parse event_data'
