//! `data.<path>`: what is at a path of the event data, and whether it is the value.

use std::cmp::Ordering;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Invalid, Test};

/// The keys of a path: 1 to 8, none of them empty.
pub(super) fn keys(path: &str) -> Result<Vec<String>, Invalid> {
    let keys: Vec<_> = path.split('.').map(str::to_owned).collect();
    if keys.len() > 8 || keys.iter().any(String::is_empty) {
        return Err(Invalid);
    }
    Ok(keys)
}

/// The value at the path is `asked`, or an array that has it.
pub(super) fn leaf(keys: &[String], asked: &str) -> Test {
    let (keys, asked) = (keys.to_vec(), asked.to_owned());
    Box::new(move |row| {
        let Some(value) = at(&row.event_data, &keys) else {
            return false;
        };
        match serde_json::from_str::<Vec<&RawValue>>(value.get()) {
            Ok(elements) => elements.into_iter().any(|element| is(element, &asked)),
            Err(_) => is(value, &asked),
        }
    })
}

fn at<'a>(json: &'a str, keys: &[String]) -> Option<&'a RawValue> {
    let mut value = serde_json::from_str(json).ok()?;
    for key in keys {
        let members: Members<'a> = object(value)?;
        // The first of equal keys.
        let mut members = members.0.into_iter();
        value = members
            .find(|(name, _)| text(name).as_ref() == Some(key))?
            .1;
    }
    Some(value)
}

/// Whether a string, number or boolean is the asked one.
fn is(value: &RawValue, asked: &str) -> bool {
    let json = value.get();
    match json.as_bytes()[0] {
        b'"' => text(value).as_deref() == Some(asked),
        b't' | b'f' => json == asked,
        b'-' | b'0'..=b'9' => is_number(asked) && double(json) == double(asked),
        _ => false,
    }
}

/// Whether a text is a number as JSON writes it, and nothing else.
fn is_number(text: &str) -> bool {
    let starts = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    starts && serde_json::from_str::<&RawValue>(text).is_ok_and(|number| number.get() == text)
}

/// A double that is itself only: `0` and `-0` are one, and JSON has no other odd ones.
fn double(number: &str) -> Double {
    Double(number.parse().unwrap())
}

struct Double(f64);

impl PartialEq for Double {
    fn eq(&self, other: &Self) -> bool {
        self.0.partial_cmp(&other.0) == Some(Ordering::Equal)
    }
}

/// A string without its escapes; half of a surrogate pair is none.
fn text(json: &RawValue) -> Option<String> {
    serde_json::from_str(json.get()).ok()
}

fn object(value: &RawValue) -> Option<Members<'_>> {
    serde_json::from_str(value.get()).ok()
}

/// The members of an object as they are written, equal keys and all.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Written)
    }
}

#[test]
fn a_value_is_found_at_the_first_of_equal_keys() {
    let found = |json: &str, path: &str, asked: &str| {
        let keys = keys(path).unwrap();
        let value = at(json, &keys);
        value.is_some_and(|value| is(value, asked))
    };
    assert!(found(r#"{"a":{"b":1},"a":{"c":2}}"#, "a.b", "1.0"));
    assert!(!found(r#"{"a":{"b":1},"a":{"c":2}}"#, "a.c", "2"));
    assert!(found(r#"{"\u0061":"\u0078","a":"y"}"#, "a", "x"));
    assert!(!found(r#"{"a":null,"a":1}"#, "a", "1"));
    assert!(found(r#"{"x":1e400,"y":"\ud800","a":true}"#, "a", "true"));
    assert!(found(r#"{"a":1e3}"#, "a", "1000"));
    assert!(!found(r#"{"a":1000}"#, "a", " 1000"));
    assert!(!found(r#"{"a":1}"#, "a", "01"));
    assert!(!found(r#"{"a":[{"b":1}]}"#, "a.b", "1"));
    assert!(found(r#"{"a":9007199254740993}"#, "a", "9007199254740992"));
}
