CREATE OR REPLACE VIEW {table}{on_cluster}
(
    class_uid        UInt16                     COMMENT 'OCSF class: 3002 is Authentication; 0 for a type without a mapping',
    class_name       String                     COMMENT 'Name of the class',
    category_uid     UInt8                      COMMENT 'OCSF category: 3 is Identity & Access Management',
    category_name    String                     COMMENT 'Name of the category',
    activity_id      UInt8                      COMMENT 'Activity within the class; 99 for one that OCSF does not name',
    activity_name    String                     COMMENT 'Name of the activity; of 99 the event type',
    type_uid         UInt32                     COMMENT 'Class and activity: class_uid * 100 + activity_id',
    type_name        String                     COMMENT 'Name of class and activity',
    severity_id      UInt8                      COMMENT 'From 1, informational, to 6, fatal: by type and outcome',
    severity         String                     COMMENT 'Name of the severity',
    status_id        UInt8                      COMMENT '1 success, 2 failure, 99 other; of a finding where its handling stands, 1 new',
    status           String                     COMMENT 'Name of the status',
    status_detail    String                     COMMENT 'Why: the reason in the event data',
    time             Int64                      COMMENT 'When it happened, milliseconds since 1970; filter by created_at',
    message          String                     COMMENT 'A sentence for people',
    metadata         Tuple(
        version          String,
        uid              String,
        event_code       String,
        product          Tuple(name String, vendor_name String, version String),
        profiles         Array(String),
        labels           Array(String),
        log_name         String,
        source           String,
        tenant_uid       String,
        correlation_uid  String,
        logged_time      Int64,
        processed_time   Int64,
        mapping_version  String)                COMMENT 'Version of OCSF, id and type of the event, its project (source), organization or else project (tenant_uid), request or else session (correlation_uid), and the version of the mapping',
    actor            Tuple(
        user             Tuple(uid String, type_id UInt8, type String),
        session          Tuple(uid String))     COMMENT 'Who did it, in which role and session',
    user             Tuple(
        uid              String,
        name             String,
        email_addr       String,
        type_id          UInt8,
        type             String)                COMMENT 'The user it is about',
    src_endpoint     Tuple(
        ip               String,
        location         Tuple(city String, country String)) COMMENT 'The client: its address and where that is, the country as ISO 3166-1 alpha-2',
    http_request     Tuple(uid String, user_agent String) COMMENT 'The request it happened in, and the client''s user agent',
    session          Tuple(uid String)          COMMENT 'Class 3002: the session',
    service          Tuple(name String)         COMMENT 'The project, as the service that the user signs in to',
    entity           Tuple(uid String, name String, type_id UInt8, type String) COMMENT 'Class 3004: the entity that was managed',
    `group`          Tuple(uid String, name String, type String) COMMENT 'Class 3006: the organization or team',
    privileges       Array(String)              COMMENT 'Class 3005: the roles or scopes',
    finding_info     Tuple(uid String, title String, desc String, types Array(String)) COMMENT 'Class 2004: the finding',
    api              Tuple(operation String)    COMMENT 'Class 6003: what was asked for',
    auth_protocol_id UInt8                      COMMENT 'Class 3002: the protocol; 99 for a method of sign-in that names none',
    auth_protocol    String                     COMMENT 'Class 3002: name of the protocol, or the method of sign-in',
    action_id        UInt8                      COMMENT 'What a security control did: 1 allowed, 2 denied, 3 observed; see disposition_id',
    action           String                     COMMENT 'Name of the action',
    disposition_id   UInt8                      COMMENT 'How a security control ended: 1 allowed, 2 blocked, 17 logged, 23 challenge; 0 if there was none',
    disposition      String                     COMMENT 'Name of the disposition',
    unmapped         String                     COMMENT 'The event data, as it was sent: a JSON object',
    ocsf             String                     COMMENT 'The whole event as an OCSF document: one line of JSON without empty attributes',
    project_id       LowCardinality(String)     COMMENT 'Whose event it is; filter by it, as the table is ordered by project and time',
    created_at       DateTime64(3, 'UTC')       COMMENT 'When it happened, at the source',
    logged_at        DateTime64(3, 'UTC')       COMMENT 'When Kafka took it: what came since an export, late events included',
    event_id         UUID                       COMMENT 'Identity of the event',
    event_type       LowCardinality(String)     COMMENT 'What happened, as it was sent',
    user_id          String                     COMMENT 'The user it is about; an index finds it',
    organization_id  String                     COMMENT 'The organization it is about; an index finds it'
)
COMMENT 'Every event as OCSF {ocsf_version}, for SIEMs: attributes as columns, empty if not given, and the whole document as ocsf. Give project_id and created_at or logged_at, or a value of an indexed column; only ocsf, unmapped and what is read from the event data cost more than small columns'
AS WITH
    -- Members of a JSON object, each behind a comma; one without a value is taken away again. Asking
    -- first would repeat the value, and then each level of the document would double those below.
    (name, value) -> replaceOne(concat(',"', name, '":', toJSONString(toString(value))), concat(',"', name, '":""'), '') AS text_member,
    (name, value) -> concat(',"', name, '":', toString(value)) AS number_member,
    (name, id, caption) -> concat(',"', name, '_id":', toString(id), ',"', name, '":', toJSONString(toString(caption))) AS enum_member,
    (name, values) -> replaceOne(concat(',"', name, '":', toJSONString(values)), concat(',"', name, '":[]'), '') AS list_member,
    members -> concat('{', substring(members, 2), '}') AS object,
    (name, members) -> replaceRegexpOne(concat(',"', name, '":', object(members)), '^,"[a-z_]+":\\{\\}$', '') AS object_member,
    (name, members) -> replaceRegexpOne(concat(',"', name, '":[', object(members), ']'), '^,"[a-z_]+":\\[\\{\\}\\]$', '') AS objects_member,

-- One step after another, since an expression that repeats another grows with each repetition.
known AS
(
    SELECT
        project_id, event_id, event_type, event_key, event_display_name, user_id, organization_id, identifier,
        actor_id, actor_type, outcome, session_id, request_id, ip_address, city, country_code, user_agent,
        event_data, created_at, logged_at, ingested_at,
        if(documented_type = '', event_type, documented_type) AS known_as
    FROM audit_events
),

mapped AS
(
    WITH
        {ocsf_mappings}::Map(String, Tuple(
            class_uid UInt16, class_name String, category_uid UInt8, category_name String,
            activity_id UInt8, activity_name String, severity_id UInt8,
            status_id UInt8, status String, status_detail String,
            action_id UInt8, action String, disposition_id UInt8, disposition String,
            target_type_id UInt8, target_type String, target_uid String, target_name String,
            privileges String, factor_type_id UInt8, factor_type String,
            account_switch_type_id UInt8, account_switch_type String, is_mfa Bool, nearest Bool)) AS mappings,
        {ocsf_outcomes}::Map(String, Tuple(
            status_id UInt8, status String, severity_id UInt8,
            action_id UInt8, action String, disposition_id UInt8, disposition String)) AS outcomes,
        {ocsf_actors}::Map(String, Tuple(type_id UInt8, type String)) AS actors,
        {ocsf_protocols}::Map(String, Tuple(id UInt8, name String)) AS protocols
    SELECT
        *,
        mappings[if(mapContains(mappings, known_as), known_as, '')] AS mapping,
        outcomes[outcome] AS ended,
        if(mapContains(actors, actor_type), actors[actor_type], (99, actor_type)) AS actor_role,
        if(mapping.class_uid = 3002, JSONExtractString(event_data, 'loginMethod'), '') AS method,
        multiIf(method = '', (0, ''), mapContains(protocols, method), protocols[method], (99, method)) AS protocol
    FROM known
),

told AS
(
    WITH
        -- A column, or else a text of the event data.
        name -> multiIf(name = '', '', name = 'user_id', user_id, name = 'organization_id', organization_id,
            name = 'identifier', identifier, JSONExtractString(event_data, name)) AS fact,
        -- The status of a finding is where its handling stands, however the event ended.
        mapping.status_id != 0 AND (ended.status_id = 1 OR mapping.class_uid = 2004) AS status_by_type
    SELECT
        *,
        mapping.class_uid AS class_uid,
        mapping.category_uid AS category_uid,
        mapping.activity_id AS activity_id,
        if(activity_id = 99, known_as, mapping.activity_name) AS activity_name,
        greatest(mapping.severity_id, ended.severity_id) AS severity_id,
        if(status_by_type, (mapping.status_id, mapping.status), (ended.status_id, ended.status)) AS final_status,
        if(ended.disposition_id != 0,
            (ended.action_id, ended.action, ended.disposition_id, ended.disposition),
            (mapping.action_id, mapping.action, mapping.disposition_id, mapping.disposition)) AS control,
        if(position(event_data, '"reason"') > 0, JSONExtractString(event_data, 'reason'), '') AS reason,
        if(event_display_name = '', event_type, event_display_name) AS message,
        multiIf(identifier != '', identifier, user_id = '' AND class_uid IN (3001, 3002, 3005), 'Unknown', '') AS user_name,
        replaceOne(if(ip_address = toIPv6('::'), '', toString(ip_address)), '::ffff:', '') AS ip,
        fact(mapping.target_uid) AS target_uid,
        fact(mapping.target_name) AS told_name,
        -- What an event is about needs one of the two, even if nothing tells it.
        multiIf(told_name != '' OR target_uid != '', told_name, event_key IN ('', 'unknown'), 'Unknown', event_key) AS target_name,
        arrayFilter(privilege -> privilege != '', multiIf(
            class_uid != 3005, [],
            JSONType(event_data, mapping.privileges) = 'Array', JSONExtract(event_data, mapping.privileges, 'Array(String)'),
            splitByRegexp('[ ,]+', JSONExtractString(event_data, mapping.privileges)))) AS told_privileges,
        if(class_uid = 6003, JSONExtractString(event_data, 'operation'), '') AS told_operation
    FROM mapped
),

shaped AS
(
    SELECT
        *,
        toUInt32(class_uid) * 100 + activity_id AS type_uid,
        concat(mapping.class_name, ': ', if(activity_id = 99, 'Other', activity_name)) AS type_name,
        ['Unknown', 'Informational', 'Low', 'Medium', 'High', 'Critical', 'Fatal'][severity_id + 1] AS severity,
        if(reason = '', mapping.status_detail, reason) AS status_detail,
        toUnixTimestamp64Milli(created_at) AS time,
        (
            '{ocsf_version}', toString(event_id), event_type, ('Audit log', 'Better Auth', '{product_version}'),
            if(control.3 = 0, [], ['security_control']), if(mapping.nearest, ['nearest_activity'], []),
            'audit_events', project_id, if(organization_id = '', project_id, organization_id),
            if(request_id = '', session_id, request_id),
            toUnixTimestamp64Milli(logged_at), toUnixTimestamp64Milli(ingested_at), '{mapping_version}'
        )::Tuple(
            version String, uid String, event_code String, product Tuple(name String, vendor_name String, version String),
            profiles Array(String), labels Array(String), log_name String, source String, tenant_uid String,
            correlation_uid String, logged_time Int64, processed_time Int64, mapping_version String) AS metadata,
        (user_id, user_name, if(position(identifier, '@') > 0, identifier, ''),
            if(user_id = '', 0, 1), if(user_id = '', 'Unknown', 'User'))::Tuple(
            uid String, name String, email_addr String, type_id UInt8, type String) AS user,
        if(class_uid = 3005 AND empty(told_privileges), ['Unknown'], told_privileges) AS privileges,
        multiIf(class_uid != 6003, '', told_operation = '', known_as, told_operation) AS operation,

        object_member('session', text_member('uid', session_id)) AS session_member,
        object_member('http_request', concat(text_member('uid', request_id), text_member('user_agent', user_agent))) AS request_member,
        object_member('location', concat(text_member('city', city), text_member('country', country_code))) AS location_member,
        object_member('user', if(actor_id = '', '', concat(
            text_member('uid', actor_id), enum_member('type', actor_role.1, actor_role.2)))) AS actor_user_member,
        concat(text_member('uid', target_uid), text_member('name', target_name)) AS target_members
    FROM told
),

grouped AS
(
    SELECT
        *,
        object_member('user', if(user.uid = '' AND user.name = '', '', concat(
            text_member('uid', user.uid), text_member('name', user.name), text_member('email_addr', user.email_addr),
            enum_member('type', user.type_id, user.type)))) AS user_member,
        concat(actor_user_member, multiIf(
            class_uid = 3002, '',
            class_uid = 6003 AND actor_user_member = '' AND session_member = '', text_member('app_name', 'Unknown'),
            session_member)) AS actor_members,
        -- An endpoint needs an address or a name.
        ip = '' AND (location_member != '' OR class_uid = 6003 OR (class_uid = 2004 AND request_member != '')) AS nameless,
        concat(if(nameless, text_member('name', 'Unknown'), text_member('ip', ip)), location_member) AS endpoint_members,
        concat(object_member('actor', actor_members), object_member('src_endpoint', endpoint_members), request_member) AS circumstances,
        objects_member('auth_factors', if(mapping.factor_type_id = 0, '',
            enum_member('factor_type', mapping.factor_type_id, mapping.factor_type))) AS factors_member
    FROM shaped
)

SELECT
    class_uid,
    mapping.class_name AS class_name,
    category_uid,
    mapping.category_name AS category_name,
    activity_id,
    activity_name,
    type_uid,
    type_name,
    severity_id,
    severity,
    final_status.1 AS status_id,
    final_status.2 AS status,
    status_detail,
    time,
    message,
    metadata,
    ((actor_id, actor_role.1, actor_role.2), tuple(if(class_uid = 3002, '', session_id))) AS actor,
    user,
    (ip, (city, country_code)) AS src_endpoint,
    (request_id, user_agent) AS http_request,
    tuple(if(class_uid = 3002, session_id, '')) AS session,
    tuple(if(class_uid = 3002, project_id, '')) AS service,
    if(class_uid = 3004, (target_uid, target_name, mapping.target_type_id, mapping.target_type), ('', '', 0, '')) AS entity,
    if(class_uid = 3006, (target_uid, target_name, mapping.target_type), ('', '', '')) AS `group`,
    privileges,
    if(class_uid = 2004, (metadata.uid, message, reason, [toString(known_as)]), ('', '', '', [])) AS finding_info,
    tuple(operation) AS api,
    protocol.1 AS auth_protocol_id,
    protocol.2 AS auth_protocol,
    control.1 AS action_id,
    control.2 AS action,
    control.3 AS disposition_id,
    control.4 AS disposition,
    event_data AS unmapped,
    concat('{"class_uid":', toString(class_uid), text_member('class_name', class_name),
        number_member('category_uid', category_uid), text_member('category_name', category_name),
        number_member('activity_id', activity_id), text_member('activity_name', activity_name),
        number_member('type_uid', type_uid), text_member('type_name', type_name),
        enum_member('severity', severity_id, severity),
        enum_member('status', status_id, status), text_member('status_detail', status_detail),
        number_member('time', time), text_member('message', message),
        object_member('metadata', concat(
            text_member('version', metadata.version), text_member('uid', metadata.uid),
            text_member('event_code', metadata.event_code),
            object_member('product', concat(text_member('name', metadata.product.name),
                text_member('vendor_name', metadata.product.vendor_name), text_member('version', metadata.product.version))),
            list_member('profiles', metadata.profiles), list_member('labels', metadata.labels),
            text_member('log_name', metadata.log_name), text_member('source', metadata.source),
            text_member('tenant_uid', metadata.tenant_uid), text_member('correlation_uid', metadata.correlation_uid),
            number_member('logged_time', metadata.logged_time), number_member('processed_time', metadata.processed_time),
            objects_member('transformation_info_list', concat(
                text_member('name', 'audit_ocsf'), text_member('uid', metadata.mapping_version))))),
        if(disposition_id = 0, '', concat(
            enum_member('action', action_id, action), enum_member('disposition', disposition_id, disposition))),
        if(class_uid IN (3001, 3002, 3005, 3006), user_member, ''),
        if(category_uid IN (3, 6), circumstances, ''),
        multiIf(
            class_uid = 3001, factors_member,
            class_uid = 3002, concat(
                session_member, object_member('service', text_member('name', project_id)), factors_member,
                if(auth_protocol_id = 0, '', enum_member('auth_protocol', auth_protocol_id, auth_protocol)),
                if(mapping.account_switch_type_id = 0, '',
                    enum_member('account_switch_type', mapping.account_switch_type_id, mapping.account_switch_type)),
                if(mapping.is_mfa, number_member('is_mfa', true), '')),
            class_uid = 3004, object_member('entity', concat(
                target_members, enum_member('type', mapping.target_type_id, mapping.target_type),
                if(mapping.target_uid = 'user_id', '', user_member))),
            class_uid = 3005, list_member('privileges', privileges),
            class_uid = 3006, object_member('group', concat(target_members, text_member('type', mapping.target_type))),
            class_uid = 6003, concat(
                object_member('api', text_member('operation', operation)),
                objects_member('resources', if(user_member = '', '', concat(
                    text_member('uid', user.uid), text_member('name', user.name), text_member('type', 'User'))))),
            class_uid = 2004, concat(
                object_member('finding_info', concat(text_member('uid', metadata.uid), text_member('title', message),
                    text_member('desc', reason), list_member('types', [toString(known_as)]))),
                objects_member('evidences', concat(user_member, circumstances))),
            ''),
        object_member('unmapped', concat(
            text_member('event_key', event_key),
            -- The base event has no place for them.
            if(class_uid = 0, concat(user_member, circumstances), ''),
            -- A line break in JSON is between two of its words; within a text it would be escaped.
            if(event_data = '{}', '', concat(',"event_data":', translate(event_data, '\n\r', '  '))))),
        '}') AS ocsf,
    project_id,
    created_at,
    logged_at,
    event_id,
    event_type,
    user_id,
    organization_id
FROM grouped
