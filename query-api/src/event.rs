//! One event, as `/v1` answers it.
//!
//! A text that is empty is `null`; objects are always there. Everything else is given as it was
//! sent.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use audit_schema::row::{EventRow, Millis};
use chrono::{DateTime, SecondsFormat, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

/// One event, as it is answered.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditLog<'a> {
    /// Its id: a UUID.
    id: String,
    /// What happened, as it was sent.
    event_type: &'a str,
    /// What happened, as Better Auth documents it.
    documented_type: Option<&'a str>,
    /// What it happened to.
    event_key: Option<&'a str>,
    /// A sentence for people.
    event_display_name: Option<&'a str>,
    /// The user it is about.
    user_id: Option<&'a str>,
    /// The organization it is about.
    organization_id: Option<&'a str>,
    /// E-mail address or name of the user it is about.
    identifier: Option<&'a str>,
    /// Who did it.
    actor: Actor<'a>,
    /// How it ended: success, failure, blocked, challenged.
    outcome: Option<&'a str>,
    /// The session it happened in.
    session_id: Option<&'a str>,
    /// The request it happened in.
    request_id: Option<&'a str>,
    /// The client's user agent.
    user_agent: Option<&'a str>,
    /// Where the client was.
    location: Location<'a>,
    /// Everything, as it was sent.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    event_data: Cow<'a, RawValue>,
    /// When it happened, at the source.
    #[schemars(extend("format" = "date-time"))]
    created_at: String,
    /// When Kafka took it.
    #[schemars(extend("format" = "date-time"))]
    logged_at: String,
    /// Whose it is.
    project_id: &'a str,
    /// Where it lies in the log.
    position: At,
}

/// Who did something.
#[derive(JsonSchema, Serialize)]
struct Actor<'a> {
    /// The user, or what else did it.
    id: Option<&'a str>,
    /// In which role: user, admin, dashboard, organization, …
    #[serde(rename = "type")]
    kind: Option<&'a str>,
}

/// Where a client was.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
struct Location<'a> {
    /// Its address.
    ip_address: Option<IpAddr>,
    city: Option<&'a str>,
    country: Option<&'a str>,
    /// ISO 3166-1 alpha-2.
    country_code: Option<&'a str>,
}

/// A position in the log. `incarnation-partition-offset` names it where a text is needed.
#[derive(JsonSchema, Serialize)]
#[schemars(rename = "Position")]
struct At {
    /// Which life of the topic.
    incarnation: u32,
    partition: u32,
    offset: u64,
}

impl<'a> AuditLog<'a> {
    /// What is answered of a row.
    pub(crate) fn of(row: &'a EventRow) -> Self {
        Self {
            id: row.event_id.to_string(),
            event_type: &row.event_type,
            documented_type: given(&row.documented_type),
            event_key: given(&row.event_key),
            event_display_name: given(&row.event_display_name),
            user_id: given(&row.user_id),
            organization_id: given(&row.organization_id),
            identifier: given(&row.identifier),
            actor: Actor {
                id: given(&row.actor_id),
                kind: given(&row.actor_type),
            },
            outcome: given(&row.outcome),
            session_id: given(&row.session_id),
            request_id: given(&row.request_id),
            user_agent: given(&row.user_agent),
            location: Location {
                ip_address: address(row.ip_address),
                city: given(&row.city),
                country: given(&row.country),
                country_code: given(&row.country_code),
            },
            event_data: embedded(&row.event_data),
            created_at: rfc3339(row.created_at),
            logged_at: rfc3339(row.logged_at),
            project_id: &row.project_id,
            position: At {
                incarnation: row.source_incarnation,
                partition: row.source_partition,
                offset: row.source_offset,
            },
        }
    }
}

/// Writes a value as JSON on one line behind `bytes`. Event data is given as it was sent, line breaks
/// between its parts too. A line break is never part of a text, where JSON has it as an escape: so a
/// space says the same.
pub(crate) fn write_on_one_line(
    bytes: &mut Vec<u8>,
    value: &impl Serialize,
) -> Result<(), serde_json::Error> {
    let begin = bytes.len();
    serde_json::to_writer(&mut *bytes, value)?;
    for byte in bytes.iter_mut().skip(begin) {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    Ok(())
}

/// A text, unless it is empty.
pub(crate) fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A client's address as it was given, if it was.
pub(crate) fn address(stored: Ipv6Addr) -> Option<IpAddr> {
    (!stored.is_unspecified()).then(|| IpAddr::V6(stored).to_canonical())
}

/// A time in UTC, to the millisecond.
pub(crate) fn rfc3339(time: Millis) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Event data as it was sent. A row that was not made by our consumer may hold anything; then its
/// text is given as a text.
pub(crate) fn embedded(data: &str) -> Cow<'_, RawValue> {
    match serde_json::from_str::<&RawValue>(data) {
        Ok(raw) => Cow::Borrowed(raw),
        Err(_) => Cow::Owned(serde_json::value::to_raw_value(data).unwrap_or_default()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row() -> EventRow {
        EventRow {
            project_id: "acme".into(),
            event_id: uuid::Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057),
            event_type: "user_created".into(),
            documented_type: "user_signed_up".into(),
            event_key: "u1".into(),
            event_display_name: "Ann signed up".into(),
            user_id: "u1".into(),
            organization_id: "o1".into(),
            identifier: "ann@example.com".into(),
            actor_id: "u1".into(),
            actor_type: "user".into(),
            outcome: "success".into(),
            session_id: "s1".into(),
            request_id: "r1".into(),
            ip_address: "::ffff:192.0.2.1".parse().unwrap(),
            city: "Graz".into(),
            country: "Austria".into(),
            country_code: "AT".into(),
            user_agent: "Firefox".into(),
            event_data: r#"{ "userId": "u1", "n": 1.50 }"#.into(),
            created_at: Millis(1_700_000_000_123),
            logged_at: Millis(1_700_000_000_400),
            source_incarnation: 1,
            source_partition: 2,
            source_offset: 3,
            ingested_at: Millis(1_700_000_000_500),
        }
    }

    #[test]
    fn an_event_is_answered_with_all_it_has() {
        let text = serde_json::to_string(&AuditLog::of(&row())).unwrap();
        assert!(text.contains(r#""eventData":{ "userId": "u1", "n": 1.50 }"#));
        insta::assert_snapshot!(serde_json::to_string_pretty(&AuditLog::of(&row())).unwrap());
    }

    #[test]
    fn what_an_event_does_not_have_is_null() {
        let mut row = row();
        for text in [
            &mut row.documented_type,
            &mut row.event_key,
            &mut row.event_display_name,
            &mut row.user_id,
            &mut row.organization_id,
            &mut row.identifier,
            &mut row.actor_id,
            &mut row.actor_type,
            &mut row.outcome,
            &mut row.session_id,
            &mut row.request_id,
            &mut row.city,
            &mut row.country,
            &mut row.country_code,
            &mut row.user_agent,
        ] {
            text.clear();
        }
        row.ip_address = Ipv6Addr::UNSPECIFIED;
        row.event_data = "{}".into();
        insta::assert_snapshot!(serde_json::to_string_pretty(&AuditLog::of(&row)).unwrap());
    }

    #[test]
    fn an_address_is_shown_as_it_was_given() {
        let shown = |text: &str| address(text.parse().unwrap()).map(|ip| ip.to_string());
        assert_eq!(shown("::ffff:192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(shown("2001:db8::1").as_deref(), Some("2001:db8::1"));
        assert_eq!(shown("::"), None);
    }
}
