//! Questions over all parameters of `GET /v1/audit-logs`: mostly about what some event has, or
//! nearly has, now and then about what none can have.

use std::collections::BTreeSet;

use audit_schema::CATALOGUE;
use audit_schema::row::EventRow;
use chrono::{DateTime, FixedOffset, SecondsFormat};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;

use crate::isolation::attempts;
use crate::random_events::{KEYS, NUMBERS, TEXTS};
use crate::reference::Question;
use crate::stand::T;

/// One parameter, with all of its values.
type Condition = Vec<(String, String)>;

/// Questions about `rows`, of 0 to 4 conditions.
pub(crate) fn questions(rows: &[EventRow]) -> impl Strategy<Value = Question> + use<> {
    vec(conditions(rows), 0..=4).prop_map(|conditions| Question(conditions.concat()))
}

fn conditions(rows: &[EventRow]) -> BoxedStrategy<Condition> {
    let of = |column: fn(&EventRow) -> &str| {
        let values: BTreeSet<_> = rows.iter().map(column).filter(|v| !v.is_empty()).collect();
        select(values.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let words_of_columns = [
        parameter("userId", text(of(|row| &row.user_id))),
        parameter("actorId", text(of(|row| &row.actor_id))),
        parameter("identifier", text(of(|row| &row.identifier))),
        parameter("eventKey", text(of(|row| &row.event_key))),
        parameter("sessionId", text(of(|row| &row.session_id))),
        parameter("requestId", text(of(|row| &row.request_id))),
        parameter("city", text(of(|row| &row.city))),
        parameter("organizationId", list(text(of(|row| &row.organization_id)))),
        parameter(
            "country",
            list(prop_oneof![
                text(of(|row| &row.country)),
                text(of(|row| &row.country_code)),
            ]),
        ),
        parameter("userAgent", part(of(|row| &row.user_agent))),
    ];
    let types = prop_oneof![of(|row| &row.event_type), of(|row| &row.documented_type)];
    let words = prop_oneof![of(|row| &row.event_display_name), of(|row| &row.event_data),];
    let others = [
        parameter("eventType", list(event_type(types))),
        parameter("category", list(category())),
        parameter("outcome", list(outcome())),
        parameter("ip", ip(of_addresses(rows))),
        parameter("q", q(words)),
        parameter("q", q(select(TEXTS).prop_map(str::to_owned))),
        time_limits(),
        order(),
        nameless(),
    ];
    let data = data(rows);
    let choices: Vec<_> = words_of_columns
        .into_iter()
        .chain(others)
        .map(|choice| (2, choice))
        .chain([(12, data)])
        .collect();
    proptest::strategy::Union::new_weighted(choices).boxed()
}

/// The parameter `name`, or its opposite, with some values.
fn parameter(
    name: &'static str,
    value: impl Strategy<Value = String> + 'static,
) -> BoxedStrategy<Condition> {
    (prop::bool::weighted(0.3), vec(value, 1..=3))
        .prop_map(move |(negated, values)| named(name, negated, values))
        .boxed()
}

fn named(name: &str, negated: bool, values: Vec<String>) -> Condition {
    let name = format!("{}{name}", if negated { "not." } else { "" });
    let with_name = |value| (name.clone(), value);
    values.into_iter().map(with_name).collect()
}

/// What means something to somebody, but seldom to a filter.
fn nasty() -> impl Strategy<Value = String> {
    let mut texts = attempts();
    texts.extend(["", " ", ",", " , ", "*", "o1 , ", "😀", "*a", "a**", "not."].map(str::to_owned));
    select(texts)
}

/// A value that occurs, one near it, or anything.
fn text(known: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    let known = known.boxed();
    prop_oneof![
        40 => known.clone(),
        6 => (known, any::<Index>()).prop_map(|(text, how)| varied(&text, how)),
        1 => nasty(),
    ]
    .boxed()
}

fn varied(text: &str, how: Index) -> String {
    let half = text.chars().count().div_ceil(2);
    match how.index(6) {
        0 => text.to_ascii_uppercase(),
        1 => text.to_uppercase(),
        2 => text.to_lowercase(),
        3 => text.chars().take(half).collect(),
        4 => format!("{text}x"),
        _ => format!(" {text} "),
    }
}

/// A part of a value that occurs, in one case or the other, or anything.
fn part(known: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    let part = (known, any::<Index>(), 0..20_usize, 0..3_u8).prop_map(|(text, at, len, how)| {
        let start = at.index(text.chars().count() + 1);
        let part: String = text.chars().skip(start).take(len + 1).collect();
        match how {
            0 => part,
            1 => part.to_uppercase(),
            _ => part.to_lowercase(),
        }
    });
    prop_oneof![30 => part, 1 => nasty()].boxed()
}

/// Values between commas.
fn list(piece: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    let comma = select(vec![",", ", ", " ,", ",,"]);
    (vec(piece, 1..=3), comma)
        .prop_map(|(pieces, comma)| pieces.join(comma))
        .boxed()
}

fn event_type(occurs: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    let named = CATALOGUE
        .iter()
        .flat_map(|entry| [Some(entry.name), entry.wire_name])
        .flatten();
    let known = prop_oneof![
        occurs,
        select(named.collect::<Vec<_>>()).prop_map(str::to_owned)
    ];
    let known = known.boxed();
    let start = (known.clone(), any::<Index>()).prop_map(|(name, length)| {
        let start: String = name.chars().take(length.index(12) + 1).collect();
        format!("{start}*")
    });
    prop_oneof![4 => text(known), 2 => start].boxed()
}

fn category() -> impl Strategy<Value = String> + 'static {
    let known = [
        "user",
        "session",
        "account",
        "verification",
        "organization",
        "security",
    ];
    rarely_else(known.to_vec())
}

fn outcome() -> impl Strategy<Value = String> + 'static {
    rarely_else(vec!["success", "failure", "blocked", "challenged"])
}

fn rarely_else(known: Vec<&'static str>) -> impl Strategy<Value = String> + 'static {
    let known = select(known).prop_map(str::to_owned).boxed();
    let unlike = (known.clone(), any::<Index>()).prop_map(|(word, how)| varied(&word, how));
    prop_oneof![60 => known, 1 => unlike, 1 => nasty()]
}

fn of_addresses(rows: &[EventRow]) -> impl Strategy<Value = std::net::Ipv6Addr> + use<> {
    let addresses: BTreeSet<_> = rows.iter().map(|row| row.ip_address).collect();
    select(addresses.into_iter().collect::<Vec<_>>())
}

fn ip(known: impl Strategy<Value = std::net::Ipv6Addr> + 'static) -> BoxedStrategy<String> {
    let written = (known, 0..6_u8, 0..=128_u8).prop_map(|(address, how, bits)| {
        match (how, address.to_canonical()) {
            (0, short) => short.to_string(),
            (1, _) => address.to_string(),
            (2, _) => format!("{address}/{bits}"),
            (3, _) => format!("{address}/{}", 90 + bits / 4),
            (_, short @ std::net::IpAddr::V4(_)) => format!("{short}/{}", bits / 4),
            (_, short) => format!("{short}/{bits}"),
        }
    });
    let wrong = select(vec![
        "1.2.3",
        "1.2.3.4/33",
        "::/129",
        "1.2.3.4/",
        "::1/-1",
        "/8",
        " ::1",
    ]);
    prop_oneof![60 => written, 1 => wrong.prop_map(str::to_owned), 1 => nasty()].boxed()
}

/// Some words of a text that occurs, or pieces of them.
fn q(known: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    let known = known.boxed();
    let words = (
        known.clone(),
        vec(any::<Index>(), 1..=3),
        select(vec![" ", "-", "\0", "_ ", "'"]),
    )
        .prop_map(|(text, which, between)| {
            let words: Vec<_> = text
                .split(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric())
                .filter(|word| !word.is_empty())
                .collect();
            let which = which.iter().filter(|_| !words.is_empty());
            let chosen: Vec<_> = which.map(|at| *at.get(&words)).collect();
            chosen.join(between)
        });
    prop_oneof![20 => words, 3 => part(known.clone()), 2 => text(known)].boxed()
}

/// A path of the data and a value: that which is there, or another one.
fn data(rows: &[EventRow]) -> BoxedStrategy<Condition> {
    // What many events have is there many times, so it is asked for more often.
    let mut leaves = Vec::new();
    for row in rows {
        let data: Value = serde_json::from_str(&row.event_data).unwrap();
        collect_leaves(&data, "data", &mut leaves);
    }
    let there = select(leaves.clone());
    let anything = prop_oneof![
        select(TEXTS).prop_map(str::to_owned),
        select(NUMBERS).prop_map(str::to_owned),
        select(vec![
            "true", "false", "null", "[]", "{}", "1e400", "01", " 1", "1 ", "+1", "0x1", "inf",
            "NaN"
        ])
        .prop_map(str::to_owned),
        nasty(),
    ];
    let anything = anything.boxed();
    let rewritten = (select(leaves.clone()), any::<Index>())
        .prop_map(|((path, value), how)| (path, written_otherwise(&value, how)));
    let near = (select(leaves), any::<Index>()).prop_map(|((path, value), how)| {
        let path = match how.index(6) {
            0 => format!("{path}.a"),
            1 => path
                .rsplit_once('.')
                .map_or("data", |(start, _)| start)
                .to_owned(),
            2 => format!("{path}."),
            3 => path.to_ascii_uppercase().replacen("DATA", "data", 1),
            4 => format!("{path}{}", ".a".repeat(7)),
            _ => path,
        };
        (path, value)
    });
    let keys = vec(select(KEYS), 1..=3);
    let somewhere = keys.prop_map(|keys| format!("data.{}", keys.join(".")));
    let first = prop_oneof![
        30 => there,
        12 => rewritten,
        2 => near,
        6 => (somewhere, anything.clone()),
    ];
    let more = vec(anything, 0..=2);
    (prop::bool::weighted(0.3), first, more)
        .prop_map(|(negated, (path, value), more)| {
            let values = std::iter::once(value).chain(more).collect();
            named(&path, negated, values)
        })
        .boxed()
}

/// The same number written otherwise, or what only looks like it.
fn written_otherwise(number: &str, how: Index) -> String {
    match how.index(9) {
        0 => format!("{number}.0"),
        1 => format!("{number}e0"),
        2 => format!("{number}0e-1"),
        3 => format!("-{number}"),
        4 => number.replace('e', "E+"),
        5 => format!("+{number}"),
        6 => format!("0{number}"),
        7 => format!("{number}."),
        _ => format!("{number} "),
    }
}

fn collect_leaves(value: &Value, path: &str, leaves: &mut Vec<(String, String)>) {
    let mut found = |text: String| leaves.push((path.to_owned(), text));
    match value {
        Value::Null => found("null".to_owned()),
        Value::String(text) => found(text.clone()),
        Value::Number(_) | Value::Bool(_) => found(value.to_string()),
        Value::Array(elements) => {
            for element in elements {
                collect_leaves(element, path, leaves);
            }
        }
        Value::Object(members) => {
            for (key, value) in members {
                collect_leaves(value, &format!("{path}.{key}"), leaves);
            }
        }
    }
}

/// Times beside those of the events. One that is relative lies half an hour from every event.
fn time_limits() -> BoxedStrategy<Condition> {
    let millis = (-5..=5_i64).prop_map(|near| (T + near).to_string());
    let written = (-5..=5_i64, 0..1_000_i64, -12..=12_i32).prop_map(|(near, micros, hours)| {
        let micros = (T + near) * 1_000 + micros;
        let zone = FixedOffset::east_opt(hours * 3_600).unwrap();
        let time = DateTime::from_timestamp_micros(micros)
            .unwrap()
            .with_timezone(&zone);
        time.to_rfc3339_opts(SecondsFormat::AutoSi, hours == 0)
    });
    let before_now = (1..=200_u32, 0..8_u8).prop_map(|(hours, unit)| match unit {
        0 => format!("-{}s", hours * 3_600),
        1 => format!("-{}m", hours * 60),
        2 => format!("-{}d", hours / 25),
        3 => format!("-{}w", [1, 1, 40, 60, 2_000][hours as usize % 5]),
        _ => format!("-{hours}h"),
    });
    let wrong = [
        "",
        " ",
        "yesterday",
        "-1",
        "-1y",
        "-h",
        "--1h",
        "-1.5h",
        "1h",
        "1.5",
        "2023-11-14",
        "2023-02-30T00:00:00Z",
        "-1H",
        "- 1h",
        "-0s",
        "0",
        "-+1h",
    ];
    let time = prop_oneof![
        16 => millis,
        16 => written,
        16 => before_now,
        2 => select(wrong.to_vec()).prop_map(str::to_owned),
        1 => nasty(),
    ];
    let name = prop_oneof![30 => Just("from"), 30 => Just("to"), 1 => Just("not.from")];
    (name, time)
        .prop_map(|(name, time)| vec![(name.to_owned(), time)])
        .boxed()
}

fn order() -> BoxedStrategy<Condition> {
    let order = prop_oneof![
        20 => Just("asc"),
        10 => Just("desc"),
        1 => select(vec!["", "ASC", "asc,desc", " asc", "1", "asc; DROP TABLE audit_events"]),
    ];
    let name = prop_oneof![30 => Just("order"), 1 => Just("not.order")];
    (name, order)
        .prop_map(|(name, order)| vec![(name.to_owned(), order.to_owned())])
        .boxed()
}

/// Parameters that there are not; all of this is refused, so it is rare.
fn nameless() -> BoxedStrategy<Condition> {
    let nearly = [
        "",
        "not",
        "not.",
        "data",
        "data.",
        "not.data.",
        "data..a",
        "data.a.",
        "not.not.userId",
        "not.not.data.a",
        "userid",
        "user_id",
        "not.limit",
        "not.cursor",
        "userId ",
        "DATA.a",
        "data.a.b.c.d.e.f.g.h.i",
        "from.userId",
        "projectId",
        "project",
        "event_data",
    ];
    let name = prop_oneof![select(nearly.to_vec()).prop_map(str::to_owned), nasty()];
    let wrong = (name, nasty()).prop_map(|named| vec![named]);
    prop_oneof![1 => wrong, 3 => Just(Vec::new())].boxed()
}
