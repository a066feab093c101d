//! A log of a year, as a Better Auth system of some size makes it, inside the engine.
//!
//! 50,000 users, of which the n-th most active makes 1/n of the events of the first (Zipf); 900
//! organizations; one project with three events of ten, 200 small ones that share the rest; sessions
//! of five events, of which 5,000 are open at a time; twelve months, each with as many events. Every
//! value follows from the event's number, so a log of so many events is always the same one.

use std::time::Instant;

use audit_tests::world::World;

use crate::native;

/// How many months, and so partitions of the table, a log has.
const MONTHS: u64 = 12;

/// The project that has three events of ten.
pub(crate) const LARGE: &str = "acme";

/// One of the 200 that have the others.
pub(crate) const SMALL: &str = "project-077";

/// How many sessions are open at a time.
const OPEN: u64 = 5_000;

/// The most partitions of the topic that the events are spread over.
const PARTITIONS: u64 = 6;

/// What browsers and programs say of themselves, a user always the same.
const AGENTS: [&str; 8] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.6723.58 Mobile Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36 Edg/129.0.0.0",
    "better-auth/1.7.25",
    "curl/8.9.1",
];

/// What the plugin sends, with its documented name, of a hundred events how many, and what people
/// read of it.
const TYPES: [(&str, &str, u64, &str); 10] = [
    ("session_created", "session_created", 35, "Session created"),
    (
        "user_signed_in",
        "user_signed_in",
        35,
        "Signed in via passkey",
    ),
    ("user_signed_out", "user_signed_out", 15, "Signed out"),
    ("user_sign_in_failed", "", 7, "Sign-in failed"),
    (
        "organization_member_added",
        "member_added",
        2,
        "Member added",
    ),
    (
        "profile_updated",
        "user_profile_updated",
        2,
        "Profile updated",
    ),
    (
        "password_changed",
        "password_changed",
        1,
        "Password changed",
    ),
    ("security_check", "security_blocked", 1, "Request blocked"),
    ("user_created", "user_signed_up", 1, "Signed up"),
    (
        "organization_created",
        "organization_created",
        1,
        "Organization created",
    ),
];

/// The SQL of the id of the user of a rank, from 0: the most active.
pub(crate) fn user(rank: &str) -> String {
    format!("concat('usr_', lower(hex(sipHash64(toUInt32({rank})))))")
}

/// Makes the tables, and the log of so many events, unless it is there.
pub(crate) async fn make(world: &World, rows: u64) -> anyhow::Result<()> {
    native::tables(world).await?;
    let there: u64 = world
        .sql("SELECT count() FROM audit_events")
        .await?
        .parse()?;
    let wanted = rows / MONTHS * MONTHS;
    if there == wanted {
        return Ok(());
    }
    world.sql("TRUNCATE TABLE audit_events").await?;
    for number in 0..MONTHS {
        let begun = Instant::now();
        world.sql(&month("audit_events", number, rows)).await?;
        eprintln!("month {number} after {:?}", begun.elapsed());
    }
    let watermarks = format!(
        "INSERT INTO audit_watermarks SELECT 1, number, intDiv({wanted} + 5 - number, 6), \
         now64(3), now64(3) FROM numbers(6)"
    );
    world.sql(&watermarks).await?;
    let begun = Instant::now();
    // As many parts as a server at rest has.
    world
        .sql("OPTIMIZE TABLE audit_events FINAL SETTINGS mutations_sync = 2")
        .await?;
    eprintln!("merged after {:?}", begun.elapsed());
    Ok(())
}

/// The columns in the order in which the statement gives them.
const COLUMNS: &str = "project_id, event_id, event_type, documented_type, event_key, \
    event_display_name, user_id, organization_id, identifier, actor_id, actor_type, outcome, \
    session_id, request_id, ip_address, city, country, country_code, user_agent, event_data, \
    created_at, logged_at, source_incarnation, source_partition, source_offset, ingested_at";

/// The statement that adds a month of `events / MONTHS` events to `table`.
fn month(table: &str, number: u64, events: u64) -> String {
    let rows = events / MONTHS;
    let first = number * rows;
    // December of a year ago is the first.
    let (year, month) = (2025 + number.div_ceil(12), (11 + number) % 12 + 1);
    let agents = AGENTS.map(|agent| format!("'{agent}'")).join(", ");
    let of_type = |text: fn(&(&str, &str, u64, &str)) -> String| {
        let mut below = 0;
        let mut cases = Vec::new();
        for kind in &TYPES {
            below += kind.2;
            cases.push(format!("share < {below}, '{}'", text(kind)));
        }
        format!("multiIf({}, '')", cases.join(", "))
    };
    let hex = |value: &str| format!("leftPad(lower(hex({value})), 16, '0')");
    format!(
        "INSERT INTO {table} ({COLUMNS}) WITH \
         number AS n, cityHash64(n, 1) AS h1, cityHash64(n, 2) AS h2, cityHash64(n, 3) AS h3, \
         cityHash64(n, 4) AS h4, h3 % 100 AS share, \
         intDiv(n, 5 * {OPEN}) * {OPEN} + n % {OPEN} AS session, cityHash64(session, 5) AS s1, \
         cityHash64(session, 6) AS s2, \
         toUInt32(exp(s1 / 18446744073709551616. * log(50000)) - 1) AS u, \
         toUInt32(u % 900) AS o, u % 60 AS place, s2 % 3 AS home, \
         if(s2 % 10 < 3, '{LARGE}', concat('project-', leftPad(toString(intDiv(s2, 10) % 200), 3, '0'))) AS project, \
         toUnixTimestamp64Milli(toDateTime64('{year}-{month:02}-01 00:00:00', 3, 'UTC')) \
         + intDiv((n - {first}) * 27 * 86400000, {rows}) + h4 % 1000 AS ms, \
         {} AS kind, concat('usr_', lower(hex(sipHash64(u)))) AS uid, \
         concat('org_', lower(hex(sipHash64(o)))) AS oid, \
         concat('user', toString(u), '@example.com') AS mail, \
         concat('ses_', lower(hex(sipHash64(session)))) AS sid, \
         [{agents}][1 + u % 8] AS agent, \
         lower(hex(toUInt64(ms))) AS time \
         SELECT project, \
         toUUID(concat(substring(time, 1, 8), '-', substring(time, 9, 4), '-7', \
         substring({}, 1, 3), '-', substring('89ab', 1 + h2 % 4, 1), substring({}, 1, 3), '-', \
         substring({}, 1, 12))), \
         kind, {}, if(startsWith(kind, 'organization'), oid, uid), {}, uid, if(h4 % 10 < 6, oid, ''), mail, \
         if(kind = 'security_check', '', if(h4 % 100 < 97, uid, {})), \
         if(h4 % 100 < 97, 'user', 'admin'), \
         multiIf(kind = 'user_sign_in_failed', 'failure', kind = 'security_check', 'blocked', 'success'), \
         if(share < 85, sid, ''), if(h4 % 5 = 0, concat('req_', lower(hex(h4))), ''), \
         toIPv6(concat('::ffff:', toString(10 + sipHash64(u, home) % 200), '.', \
         toString(sipHash64(u, home, 1) % 256), '.', toString(sipHash64(u, home, 2) % 256), '.', \
         toString(sipHash64(u, home, 3) % 256))), \
         concat('City ', toString(place)), concat('Country ', toString(place % 25)), \
         substring('DEATCHFRITESPLNLBECZSKHUSIHRGBIEUSCAAUNZJPKRINBRMX', 1 + 2 * (place % 25), 2), agent, \
         concat('{{\"userId\":\"', uid, '\",\"userEmail\":\"', mail, '\",\"userName\":\"User ', toString(u), \
         '\",\"sessionId\":\"', sid, '\",\"loginMethod\":\"', \
         ['passkey', 'email', 'google', 'github'][1 + h4 % 4], '\",\"userAgent\":\"', agent, \
         '\",\"triggeredBy\":\"', uid, '\",\"triggerContext\":\"user\",\"device\":{{\"os\":\"', \
         ['ios', 'android', 'windows', 'macos', 'linux'][1 + u % 5], '\",\"trusted\":', \
         if(u % 3 = 0, 'true', 'false'), '}},\"score\":', toString(h4 % 100), '}}'), \
         fromUnixTimestamp64Milli(toInt64(ms), 'UTC'), \
         fromUnixTimestamp64Milli(toInt64(ms + 40 + h1 % 100), 'UTC'), \
         1, toUInt32(n % {PARTITIONS}), intDiv(n, {PARTITIONS}), nowInBlock64(3) \
         FROM numbers({first}, {rows})",
        of_type(|kind| kind.0.to_owned()),
        hex("h1"),
        hex("h2"),
        hex("h3"),
        of_type(|kind| kind.1.to_owned()),
        of_type(|kind| kind.3.to_owned()),
        "concat('usr_', lower(hex(sipHash64(toUInt32(h4 % 50)))))",
    )
}
