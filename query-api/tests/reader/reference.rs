//! The filters of `GET /v1/audit-logs` a second time, told straight from their description: which
//! events match a question, and in what order.
//!
//! It shares nothing with the API but the catalogue of event types, and looks at every row for
//! every condition. Where the two differ, one of them has misread the description.

use std::collections::BTreeMap;
use std::fmt;

use audit_schema::row::{EventRow, Millis};
use audit_schema::{CATALOGUE, CatalogueEntry, Category, EventType};
use chrono::DateTime;

use crate::stand::encoded;

mod data;
mod network;

/// The longest value, or piece of one between commas, in characters.
const MAX_VALUE_LEN: usize = 1_024;

/// The most values, or pieces, of one parameter.
const MAX_VALUES: usize = 1_000;

/// What is asked: parameters and their values, decoded, in their order.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Question(pub(crate) Vec<(String, String)>);

/// As the query string it is asked with.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, value)) in self.0.iter().enumerate() {
            let before = if number == 0 { "" } else { "&" };
            write!(f, "{before}{}={}", encoded(name), encoded(value))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

/// The description gives the question no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Invalid;

/// What a value says about one event.
type Test = Box<dyn Fn(&EventRow) -> bool>;

/// What all values of one parameter say together.
struct Condition {
    negated: bool,
    any_of: Vec<Test>,
}

impl Condition {
    fn keeps(&self, row: &EventRow) -> bool {
        self.any_of.iter().any(|test| test(row)) != self.negated
    }
}

/// The readable events of all projects.
pub(crate) struct Reference {
    pub(crate) rows: Vec<EventRow>,
}

impl Reference {
    /// The events of `project` that `question` asks for, in its order; of one organization only,
    /// if the key is restricted to it. `now` is when the set was frozen.
    pub(crate) fn answer(
        &self,
        project: &str,
        organization: Option<&str>,
        question: &Question,
        now: Millis,
    ) -> Result<Vec<&EventRow>, Invalid> {
        let mut values_of = BTreeMap::<&str, Vec<&str>>::new();
        for (name, value) in &question.0 {
            values_of.entry(name).or_default().push(value);
        }
        let newest_first = match values_of.remove("order").as_deref() {
            None | Some(["desc"]) => true,
            Some(["asc"]) => false,
            Some(_) => return Err(Invalid),
        };
        let conditions = values_of
            .into_iter()
            .map(|(name, values)| condition(name, &values, now))
            .collect::<Result<Vec<_>, _>>()?;

        let mut rows: Vec<_> = self
            .rows
            .iter()
            .filter(|row| row.project_id == project)
            .filter(|row| organization.is_none_or(|own| row.organization_id == own))
            .filter(|row| conditions.iter().all(|condition| condition.keeps(row)))
            .collect();
        rows.sort_by_key(|row| place(row));
        if newest_first {
            rows.reverse();
        }
        Ok(rows)
    }
}

/// What the events are ordered by. ClickHouse compares the second half of a UUID first.
fn place(row: &EventRow) -> impl Ord + use<> {
    let (first_half, second_half) = row.event_id.as_u64_pair();
    (
        row.created_at,
        (second_half, first_half),
        row.source_incarnation,
        row.source_partition,
        row.source_offset,
    )
}

fn condition(name: &str, values: &[&str], now: Millis) -> Result<Condition, Invalid> {
    let (negated, any_of) = match (name, name.strip_prefix("not.")) {
        ("from" | "to", _) => (false, vec![time_limit(name, values, now)?]),
        (_, Some(name)) => (true, tests(name, values)?),
        (_, None) => (false, tests(name, values)?),
    };
    Ok(Condition { negated, any_of })
}

/// What each value of a parameter that can be negated says.
fn tests(name: &str, values: &[&str]) -> Result<Vec<Test>, Invalid> {
    if values.contains(&"") {
        return Err(Invalid);
    }
    let pieces = pieces(values);
    let has_pieces = [
        "organizationId",
        "eventType",
        "category",
        "outcome",
        "country",
    ];
    let values = if has_pieces.contains(&name) {
        &pieces?
    } else {
        values
    };
    let too_long = values
        .iter()
        .any(|value| value.chars().count() > MAX_VALUE_LEN);
    if too_long || values.len() > MAX_VALUES {
        return Err(Invalid);
    }
    let each = |test: fn(&str) -> Result<Test, Invalid>| values.iter().map(|v| test(v)).collect();
    match name {
        "userId" => Ok(column(values, |row| &row.user_id)),
        "actorId" => Ok(column(values, |row| &row.actor_id)),
        "identifier" => Ok(column(values, |row| &row.identifier)),
        "eventKey" => Ok(column(values, |row| &row.event_key)),
        "sessionId" => Ok(column(values, |row| &row.session_id)),
        "requestId" => Ok(column(values, |row| &row.request_id)),
        "city" => Ok(column(values, |row| &row.city)),
        "organizationId" => Ok(column(values, |row| &row.organization_id)),
        "eventType" => each(event_type),
        "category" => each(category),
        "outcome" => each(outcome),
        "country" => each(country),
        "ip" => each(network::ip),
        "userAgent" => each(user_agent),
        "q" => each(words_of_text),
        _ => {
            let path = name.strip_prefix("data.").ok_or(Invalid)?;
            let keys = data::keys(path)?;
            let test = |value: &&str| data::leaf(&keys, value);
            Ok(values.iter().map(test).collect())
        }
    }
}

fn is_blank(value: &str) -> bool {
    value.split(',').all(|piece| piece.trim().is_empty())
}

/// The pieces between the commas, without blanks around them; empty ones are dropped.
fn pieces<'a>(values: &[&'a str]) -> Result<Vec<&'a str>, Invalid> {
    if values.iter().any(|value| is_blank(value)) {
        return Err(Invalid);
    }
    let pieces: Vec<_> = values
        .iter()
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|piece| !piece.is_empty())
        .collect();
    if pieces.is_empty() {
        Err(Invalid)
    } else {
        Ok(pieces)
    }
}

/// The column is the value.
fn column(values: &[&str], of: fn(&EventRow) -> &str) -> Vec<Test> {
    let test = |value: &&str| -> Test {
        let value = (*value).to_owned();
        Box::new(move |row| of(row) == value)
    };
    values.iter().map(test).collect()
}

fn event_type(value: &str) -> Result<Test, Invalid> {
    if value == "*" || EventType::new(value).is_err() {
        return Err(Invalid);
    }
    if let Some(start) = value.strip_suffix('*') {
        let start = start.to_owned();
        return Ok(Box::new(move |row| {
            row.documented_type.starts_with(&start) || row.event_type.starts_with(&start)
        }));
    }
    if let Some(entry) = CatalogueEntry::named(value) {
        return Ok(Box::new(|row| row.documented_type == entry.name));
    }
    let value = value.to_owned();
    Ok(Box::new(move |row| row.event_type == value))
}

fn category(value: &str) -> Result<Test, Invalid> {
    let category = match value {
        "user" => Category::User,
        "session" => Category::Session,
        "account" => Category::Account,
        "verification" => Category::Verification,
        "organization" => Category::Organization,
        "security" => Category::Security,
        _ => return Err(Invalid),
    };
    Ok(Box::new(move |row| {
        CATALOGUE
            .iter()
            .any(|entry| entry.category == category && entry.name == row.documented_type)
    }))
}

fn outcome(value: &str) -> Result<Test, Invalid> {
    if !["success", "failure", "blocked", "challenged"].contains(&value) {
        return Err(Invalid);
    }
    let value = value.to_owned();
    Ok(Box::new(move |row| row.outcome == value))
}

#[expect(clippy::unnecessary_wraps, reason = "as the others are")]
fn country(value: &str) -> Result<Test, Invalid> {
    let (name, code) = (value.to_owned(), value.to_ascii_uppercase());
    Ok(Box::new(move |row| {
        row.country == name || row.country_code == code
    }))
}

#[expect(clippy::unnecessary_wraps, reason = "as the others are")]
fn user_agent(value: &str) -> Result<Test, Invalid> {
    let value = value.to_ascii_lowercase();
    Ok(Box::new(move |row| {
        row.user_agent.to_ascii_lowercase().contains(&value)
    }))
}

fn words_of_text(value: &str) -> Result<Test, Invalid> {
    let asked = words(value);
    if asked.is_empty() {
        return Err(Invalid);
    }
    Ok(Box::new(move |row| {
        let mut has = words(&row.event_display_name);
        has.extend(words(&row.event_data));
        asked.iter().all(|word| has.contains(word))
    }))
}

/// The longest runs of ASCII letters, digits, and bytes from 0x80, in small letters.
fn words(text: &str) -> Vec<Vec<u8>> {
    text.as_bytes()
        .split(|byte| byte.is_ascii() && !byte.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(<[u8]>::to_ascii_lowercase)
        .collect()
}

fn time_limit(name: &str, values: &[&str], now: Millis) -> Result<Test, Invalid> {
    let [text] = values else {
        return Err(Invalid);
    };
    let limit = nanos_since_1970(text, now).ok_or(Invalid)?;
    let nanos = |row: &EventRow| i128::from(row.created_at.0) * 1_000_000;
    Ok(match name {
        "from" => Box::new(move |row| nanos(row) >= limit),
        _ => Box::new(move |row| nanos(row) < limit),
    })
}

fn nanos_since_1970(text: &str, now: Millis) -> Option<i128> {
    let before_now = || {
        let span = text.strip_prefix('-')?;
        let units = [
            ("s", 1),
            ("m", 60),
            ("h", 3_600),
            ("d", 86_400),
            ("w", 604_800),
        ];
        let (number, unit) = units
            .into_iter()
            .find_map(|(unit, seconds)| Some((span.strip_suffix(unit)?, seconds)))?;
        let seconds = digits(number)?.checked_mul(unit)?;
        Some(i128::from(now.0) * 1_000_000 - seconds.checked_mul(1_000_000_000)?)
    };
    let in_millis = || {
        digits(text.strip_prefix('-').unwrap_or(text))?;
        let millis: i64 = text.parse().ok()?;
        Some(i128::from(millis) * 1_000_000)
    };
    let by_calendar = || {
        let time = DateTime::parse_from_rfc3339(text).ok()?;
        let seconds = i128::from(time.timestamp()) * 1_000_000_000;
        Some(seconds + i128::from(time.timestamp_subsec_nanos()))
    };
    before_now().or_else(in_millis).or_else(by_calendar)
}

fn digits(text: &str) -> Option<i128> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

#[test]
fn words_and_times_are_read_as_described() {
    let read = |text: &str| -> Vec<String> {
        let words = words(text).into_iter();
        words.map(|word| String::from_utf8(word).unwrap()).collect()
    };
    assert_eq!(
        read("Ann's_ÜBER-cool\0日本 2"),
        ["ann", "s", "Über", "cool", "日本", "2"]
    );
    assert_eq!(read("\u{a0}|\u{2028}x"), ["\u{a0}", "\u{2028}x"]);
    let millis = |text| nanos_since_1970(text, Millis(90_000_000)).map(|nanos| nanos / 1_000_000);
    assert_eq!(millis("-1d"), Some(3_600_000));
    assert_eq!(millis("-0s"), Some(90_000_000));
    assert_eq!(millis("-1"), Some(-1));
    assert_eq!(millis("1970-01-01T01:00:00+01:00"), Some(0));
    for wrong in [
        "",
        "-",
        "-h",
        "1h",
        "-1y",
        "--1h",
        "+1",
        "1.5",
        "-99999999999999999999999999999999999999w",
    ] {
        assert_eq!(millis(wrong), None, "{wrong}");
    }
}
