//! What becomes of one value.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hmac::{Hmac, Mac as _};
use serde::Deserialize;
use sha2::Sha256;

/// What a rule does to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Drop,
    Hash,
    Truncate,
}

/// What became of a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Redacted {
    Kept,
    Dropped,
    Replaced(String),
}

impl Action {
    /// An empty text and `unknown` say nothing about anybody: hashed, they would look as if they
    /// did, and as an event key they would bring all such events into one partition.
    pub(super) fn on_text(self, text: &str, mac: Option<&Hmac<Sha256>>) -> Redacted {
        match (self, mac) {
            (Self::Drop, _) | (Self::Hash, None) => Redacted::Dropped,
            _ if matches!(text, "" | "unknown") => Redacted::Kept,
            (Self::Hash, Some(mac)) => Redacted::Replaced(hash(text, mac.clone())),
            (Self::Truncate, _) => Redacted::Replaced(truncated(text)),
        }
    }

    /// A number is hashed as it is written. What an object or a list says of anybody is unknown,
    /// so it is dropped with all that is in it.
    pub(super) fn on_json(self, json: &str, mac: Option<&Hmac<Sha256>>) -> Redacted {
        match (self, json.bytes().next()) {
            (Self::Drop, _) => Redacted::Dropped,
            (_, Some(b'n')) => Redacted::Kept,
            (_, Some(b'"')) => match self.on_text(&unquoted(json), mac) {
                Redacted::Replaced(text) => match serde_json::to_string(&text) {
                    Ok(json) => Redacted::Replaced(json),
                    Err(_) => Redacted::Dropped,
                },
                other => other,
            },
            (Self::Hash, Some(b'-' | b'0'..=b'9' | b't' | b'f')) => match self.on_text(json, mac) {
                Redacted::Replaced(hash) => Redacted::Replaced(format!("\"{hash}\"")),
                other => other,
            },
            _ => Redacted::Dropped,
        }
    }
}

/// The text of a JSON string. Half of a surrogate pair is no text; then it is the source, without
/// its quotes.
pub(super) fn unquoted(json: &str) -> Cow<'_, str> {
    let source = json.get(1..json.len().saturating_sub(1)).unwrap_or(json);
    if !json.contains('\\') {
        return Cow::Borrowed(source);
    }
    serde_json::from_str(json).map_or(Cow::Borrowed(source), Cow::Owned)
}

/// Half of the bytes of the MAC; enough that no two values meet.
fn hash(text: &str, mut mac: Hmac<Sha256>) -> String {
    mac.update(text.as_bytes());
    let mac = mac.finalize().into_bytes();
    let half = mac.iter().take(16);
    let number = half.fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    format!("hmac:{number:032x}")
}

/// An address without its host, an e-mail address without its name; of another text so little
/// that it can be recognised and not guessed.
fn truncated(text: &str) -> String {
    if let Ok(address) = text.parse() {
        return network(address).to_string();
    }
    // Only what reads as a domain: a URL with a password in it has an @ as well.
    let is_domain = |domain: &str| {
        let reads_well = |char: char| char.is_alphanumeric() || matches!(char, '.' | '-');
        !domain.is_empty() && domain.chars().all(reads_well)
    };
    match text.rsplit_once('@') {
        Some((name, domain)) if is_domain(domain) && !name.is_empty() => {
            let first: String = name.chars().take(1).collect();
            format!("{first}…@{domain}")
        }
        _ => {
            let shown = (text.chars().count() / 4).min(4);
            text.chars().take(shown).chain(['…']).collect()
        }
    }
}

/// The address with zeros behind its network: /24 of IPv4, /48 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hmac::KeyInit as _;

    fn mac() -> Hmac<Sha256> {
        Hmac::new_from_slice(b"0123456789abcdef0123456789abcdef").unwrap()
    }

    fn on_json(action: Action, json: &str) -> Redacted {
        action.on_json(json, Some(&mac()))
    }

    fn replaced(json: &str) -> Redacted {
        Redacted::Replaced(json.to_owned())
    }

    #[test]
    fn truncated_a_value_can_be_recognised_and_not_used() {
        for (value, shown) in [
            ("ann@example.com", "a…@example.com"),
            ("żaneta@example.com", "ż…@example.com"),
            ("\"a@b\"@example.com", "\"…@example.com"),
            ("203.0.113.77", "203.0.113.0"),
            ("2001:db8:1:2::3", "2001:db8:1::"),
            ("::ffff:203.0.113.77", "203.0.113.0"),
            ("::1", "::"),
            ("eyJhbGciOiJIUzI1NiJ9.e30.x", "eyJh…"),
            ("https://ann:hunter2@example.com/reset?t=1", "http…"),
            ("Ann Smith", "An…"),
            ("123456", "1…"),
            ("ann", "…"),
            ("@example.com", "@ex…"),
            ("p@ss word", "p@…"),
        ] {
            assert_eq!(truncated(value), shown, "{value}");
        }
    }

    #[test]
    fn a_hash_is_the_first_half_of_the_hmac_of_the_text() {
        // printf %s ann@example.com | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let ann = replaced("\"hmac:093e3dd9df951c5008225d533a017547\"");
        assert_eq!(on_json(Action::Hash, "\"ann@example.com\""), ann);
        assert_eq!(on_json(Action::Hash, r#""ann\u0040example.com""#), ann);
        assert_ne!(on_json(Action::Hash, "\"Ann@example.com\""), ann);
        assert_eq!(on_json(Action::Hash, "42"), on_json(Action::Hash, "\"42\""));
        assert!(matches!(
            on_json(Action::Hash, r#""\ud800""#),
            Redacted::Replaced(_)
        ));
        assert_eq!(Action::Hash.on_text("ann", None), Redacted::Dropped);
    }

    #[test]
    fn what_is_no_text_is_not_shown_in_part() {
        for json in [
            "42",
            "-1.0e2",
            "true",
            "false",
            "{}",
            "[\"ann@example.com\"]",
        ] {
            assert_eq!(on_json(Action::Truncate, json), Redacted::Dropped, "{json}");
        }
        for json in ["{\"a\":1}", "[]"] {
            assert_eq!(on_json(Action::Hash, json), Redacted::Dropped, "{json}");
        }
    }

    #[test]
    fn what_says_nothing_is_kept_unless_it_is_dropped() {
        for json in ["null", "\"\"", "\"unknown\""] {
            assert_eq!(on_json(Action::Hash, json), Redacted::Kept);
            assert_eq!(on_json(Action::Truncate, json), Redacted::Kept);
            assert_eq!(on_json(Action::Drop, json), Redacted::Dropped);
        }
    }

    #[test]
    fn what_stands_for_a_text_is_json_again() {
        assert_eq!(
            on_json(Action::Truncate, r#""\"\\\n\u0000 and 12 more""#),
            replaced(r#""\"\\\n\u0000…""#)
        );
    }
}
