//! Events of two projects in which every filter finds something: few values, so that they meet,
//! and among them those that a filter may take for another.

use audit_schema::row::{EventColumns, EventRow};
use audit_schema::{Actor, CATALOGUE, Event, EventData, EventId, EventType, Location, Outcome};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use crate::stand::{ACME, OTHER, T, event, position};

/// An hour in milliseconds.
const HOUR: i64 = 3_600_000;

const USERS: &[&str] = &[
    "u1", "u1", "u2", "U1", "u1,u2", "u_", "u%", "ünï", "o'neil", "u\\", "u1\0", "",
];
const ORGANIZATIONS: &[&str] = &["o1", "o1", "o2", "O1", "o3", ""];
const IDENTIFIERS: &[&str] = &[
    "ann@example.com",
    "Ann@example.com",
    "eve, the third",
    "😀",
    "",
];
const SESSIONS: &[&str] = &["s1", "s2", "s-1", "'); --", ""];
const CITIES: &[&str] = &["Graz", "graz", "São Paulo", "New York", ""];

/// Names of countries, and codes that may say something else.
const COUNTRIES: &[(&str, &str)] = &[
    ("Austria", "AT"),
    ("Austria", ""),
    ("Österreich", "AT"),
    ("", "AT"),
    ("AT", ""),
    ("at", "DE"),
    ("", "de"),
    ("Korea, South", "KR"),
    ("", ""),
];

const ADDRESSES: &[&str] = &[
    "192.0.2.1",
    "192.0.2.77",
    "192.0.3.1",
    "10.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "::ffff:192.0.2.1",
    "::192.0.2.1",
    "::fffe:192.0.2.1",
    "::1",
    "2001:db8::1",
    "2001:db8::ff00:1",
    "2001:db8:1::1",
    "fe80::1",
];

const USER_AGENTS: &[&str] = &[
    "Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0",
    "mozilla/5.0 (x11; linux X86_64) FIREFOX/128.0",
    "curl/8.5.0",
    "Ünïcode Agent \u{212a}",
    "ÜNÏCODE agent k",
    "100% _\\_ 'x' \"y\"",
    "",
];

const DISPLAY_NAMES: &[&str] = &[
    "Ann signed in",
    "ANN signed out",
    "Ann's invoice #42 was paid",
    "Überweisung für Ann",
    "ÜBERWEISUNG",
    "日本 語",
    "a_b-c.d/e2",
    "one\u{a0}word\u{2028}too",
    "nul\0and\ttab\u{7f}end",
    "",
];

/// Types that are no entry of the catalogue, or only by what the data says.
const OTHER_TYPES: &[&str] = &[
    "security_check",
    "security_signal",
    "user_sign_in_failed",
    "invoice.paid",
    "Invoice.Paid",
    "invoice.paid_late",
    "user_",
    "a%b",
    "a'b",
    "a*",
];

pub(crate) const KEYS: &[&str] = &[
    "plan",
    "n",
    "ok",
    "tags",
    "a",
    "b",
    "A",
    "a.b",
    "k y",
    "ключ",
    "😀",
    "q\"uote",
    "back\\slash",
    "",
    "1",
    "userId",
    "it's",
    "nul\0",
];

/// Numbers as they may be written; ClickHouse reads no document with larger ones.
pub(crate) const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-0.0",
    "1",
    "1.0",
    "1e0",
    "-0.5",
    "-5E-1",
    "1e3",
    "1000",
    "0.1",
    "0.30000000000000004",
    "9007199254740992",
    "9007199254740993",
    "18446744073709551615",
    "-9223372036854775808",
    "1e308",
    "5e-324",
    "1e-400",
];

pub(crate) const TEXTS: &[&str] = &[
    "pro",
    "Pro",
    "1",
    "1.0",
    "true",
    "null",
    "",
    "two words",
    "ä",
    "it's",
    "back\\slash",
    "%",
    "{x:String}",
    "nul\0inside",
    "😀",
    "line\nbreak",
    "[1]",
    "2023-11-14",
];

/// Documents in which something is rare but not random.
const DOCUMENTS: &[&str] = &[
    "{}",
    r#"{"outcome":"blocked","action":"blocked","type":"impossible_travel"}"#,
    r#"{"outcome":"challenged","action":"challenged","type":"bot_blocked"}"#,
    r#"{"outcome":"passed","evaluatedChecks":["ip","pow_challenge"]}"#,
    r#"{"userId":"u2","organizationId":"o2","userEmail":"ann@example.com","triggeredBy":"u1"}"#,
    r#"{"a":1,"a":2,"a":{"b":3}}"#,
    r#"{"a":{"b":1},"a":{"c":2},"plan":null,"plan":"pro"}"#,
    r#"{"\u0061":5,"a":6}"#,
    r#"{"a":{"\u0062":"\u0070ro","b":"free"}}"#,
    r#"{"a":{"b":{"a":{"b":{"a":{"b":{"a":{"b":"deep"}}}}}}}}"#,
    r#"{"a":{"b":{"a":{"b":{"a":{"b":{"a":{"b":{"a":"deeper"}}}}}}}}}"#,
    r#"{"tags":["pro","1",1,true,null,{"a":"b"},["nested"]],"n":[]}"#,
    "{ \"plan\" : \"pro\" ,\n\t\"n\" : 1.50 }",
    r#"{"emoji":"\ud83d\ude00","slash":"a\/b","line":"x\ny"}"#,
];

/// What a table holds: the events that are readable, and behind them those that are not yet.
pub(crate) struct RandomEvents {
    pub(crate) readable: Vec<Event<'static>>,
    pub(crate) unsettled: Vec<Event<'static>>,
}

impl RandomEvents {
    /// The same for the same seed, but for the events of the hours before `now`.
    pub(crate) fn new(seed: u64, now: i64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut readable = Vec::new();
        while readable.len() < 600 {
            let made = one(&mut random, ACME, now);
            // Half of what the other project has, it shares with this one, in all or in its key.
            let theirs = match random.random_range(0..4) {
                0 => made.clone(),
                1 => Event {
                    id: made.id,
                    created_at: made.created_at,
                    ..one(&mut random, OTHER, now)
                },
                _ => one(&mut random, OTHER, now),
            };
            readable.push(Event {
                project_id: OTHER.parse().unwrap(),
                ..theirs
            });
            if random.random_ratio(1, 20) {
                let again = one(&mut random, ACME, now);
                readable.push(Event {
                    id: made.id,
                    created_at: made.created_at,
                    ..again
                });
            }
            readable.push(made);
        }
        readable.shuffle(&mut random);
        let mut unsettled: Vec<_> = readable.iter().step_by(6).cloned().collect();
        for project in [ACME, OTHER] {
            unsettled.extend((0..50).map(|_| one(&mut random, project, now)));
        }
        Self {
            readable,
            unsettled,
        }
    }

    /// The readable ones as they are stored when they are the start of the log.
    pub(crate) fn rows(&self) -> Vec<EventRow> {
        let mut columns = EventColumns::default();
        for (number, event) in (0..).zip(&self.readable) {
            columns.push(event, position(number), event.created_at.into());
        }
        columns.rows().collect()
    }
}

fn one(random: &mut StdRng, project: &str, now: i64) -> Event<'static> {
    let mut pick = |from: &'static [&'static str]| *from.choose(random).unwrap();
    let builder = event(project, T)
        .user_id(pick(USERS))
        .organization_id(pick(ORGANIZATIONS))
        .identifier(pick(IDENTIFIERS))
        .event_key(pick(USERS))
        .session_id(pick(SESSIONS))
        .request_id(pick(SESSIONS))
        .user_agent(pick(USER_AGENTS))
        .event_display_name(pick(DISPLAY_NAMES))
        .actor(Actor {
            id: pick(USERS).into(),
            kind: "user".into(),
        });
    let (city, address) = (pick(CITIES), pick(ADDRESSES));
    let (country, code) = *COUNTRIES.choose(random).unwrap();
    let given = random.random_ratio(4, 5);
    let location = Location {
        ip_address: given.then(|| address.parse().unwrap()),
        city: city.into(),
        country: country.into(),
        country_code: code.into(),
    };
    let event = builder
        .location(location)
        .event_data(EventData::parse(&document(random)).unwrap())
        .build()
        .unwrap();
    Event {
        id: id(random),
        event_type: EventType::new(event_type(random)).unwrap(),
        created_at: audit_schema::row::Millis(time(random, now)).into(),
        outcome: outcome(random),
        ..event
    }
}

/// Many share a half with another one.
fn id(random: &mut StdRng) -> EventId {
    let half = |random: &mut StdRng| match random.random_range(0..3) {
        0 => random.random_range(0..4_u64),
        1 => u64::MAX - random.random_range(0..4_u64),
        _ => random.random(),
    };
    Uuid::from_u64_pair(half(random), half(random)).into()
}

fn event_type(random: &mut StdRng) -> &'static str {
    match random.random_range(0..10) {
        0..5 => OTHER_TYPES.choose(random).unwrap(),
        5 => "user_created",
        6 => "user_signed_up",
        _ => {
            let entry = CATALOGUE.choose(random).unwrap();
            let wire = entry.wire_name.filter(|_| random.random());
            wire.unwrap_or(entry.name)
        }
    }
}

fn outcome(random: &mut StdRng) -> Option<Outcome> {
    let stated = [
        Outcome::Success,
        Outcome::Failure,
        Outcome::Blocked,
        Outcome::Challenged,
    ];
    stated.choose(random).copied().filter(|_| random.random())
}

/// Mostly one millisecond; else near it, in another month, or some hours and a half ago: so far
/// from every whole hour that a test may take its time.
fn time(random: &mut StdRng, now: i64) -> i64 {
    match random.random_range(0..10) {
        0..5 => T,
        5..7 => T + random.random_range(-3..=3),
        7 => T + random.random_range(-10..10) * 24 * HOUR,
        _ => now - random.random_range(0..200) * HOUR - HOUR / 2,
    }
}

fn document(random: &mut StdRng) -> String {
    if random.random_ratio(1, 4) {
        return (*DOCUMENTS.choose(random).unwrap()).to_owned();
    }
    object(random, 3)
}

fn object(random: &mut StdRng, depth: u32) -> String {
    let members = (0..random.random_range(0..6)).map(|_| {
        let key = quoted(random, KEYS);
        format!("{key}:{}", value(random, depth))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn value(random: &mut StdRng, depth: u32) -> String {
    match random.random_range(0..10) {
        0..3 => quoted(random, TEXTS),
        3..6 => (*NUMBERS.choose(random).unwrap()).to_owned(),
        6 => random.random::<bool>().to_string(),
        7 if depth > 0 => {
            let elements = (0..random.random_range(0..4)).map(|_| value(random, depth - 1));
            format!("[{}]", elements.collect::<Vec<_>>().join(","))
        }
        8 | 9 if depth > 0 => object(random, depth - 1),
        _ => "null".to_owned(),
    }
}

/// A text as JSON, now and then with its first character escaped as none need be.
fn quoted(random: &mut StdRng, texts: &[&str]) -> String {
    let text = *texts.choose(random).unwrap();
    let json = serde_json::to_string(text).unwrap();
    match text.chars().next() {
        Some(first) if first.is_ascii_alphanumeric() && random.random_ratio(1, 10) => {
            json.replacen(first, &format!("\\u{:04x}", u32::from(first)), 1)
        }
        _ => json,
    }
}
