//! The query string of a request, taken apart strictly.
//!
//! Each handler takes the parameters it knows and refuses the rest by name, so a misspelt filter
//! is an error and never a wider answer. Text that is not UTF-8 is refused too: replaced by
//! question marks it would ask for something else.

use std::ops::RangeInclusive;

use audit_service::ApiError;
use audit_service::suggestion::nearest;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// Longest name or text that is repeated in a message.
const MAX_ECHO: usize = 64;

/// The parameters of a request that were not taken yet, in their order.
#[derive(Debug)]
pub(crate) struct QueryString {
    pairs: Vec<(String, String)>,
}

impl QueryString {
    /// Takes apart what stands behind the `?`.
    pub(crate) fn parse(raw: Option<&str>) -> Result<Self, ApiError> {
        let mut pairs = Vec::new();
        let parts = raw.unwrap_or_default().split('&');
        for part in parts.filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = decoded(name)
                .ok_or_else(|| ApiError::invalid("query", "a parameter's name is not UTF-8"))?;
            let value = decoded(value).ok_or_else(|| {
                ApiError::invalid(
                    echo(&name),
                    "is not UTF-8; percent-encode the bytes of UTF-8",
                )
            })?;
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    /// The same of pairs that were taken apart already.
    pub(crate) fn of(pairs: Vec<(String, String)>) -> Self {
        Self { pairs }
    }

    /// Every parameter with its values, for the record.
    pub(crate) fn question(&self) -> Map<String, Value> {
        let mut question = Map::new();
        for (name, value) in &self.pairs {
            let values = question
                .entry(name)
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(values) = values {
                values.push(value.as_str().into());
            }
        }
        question
    }

    /// Takes a parameter that makes sense once.
    pub(crate) fn take_one(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        let mut values = self.take_all(name).into_iter();
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(ApiError::invalid(name, "may be given only once")),
        }
    }

    /// Takes every value of a parameter.
    pub(crate) fn take_all(&mut self, name: &str) -> Vec<String> {
        let taken = self.pairs.extract_if(.., |(found, _)| found == name);
        taken.map(|(_, value)| value).collect()
    }

    /// Takes a whole number of a range; `hint` says what to do beyond it.
    pub(crate) fn take_number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        hint: &str,
    ) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.take_one(name)? else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let (least, most) = (range.start(), range.end());
                let reason = format!("must be a whole number from {least} to {most}{hint}");
                Err(ApiError::invalid(name, reason))
            }
        }
    }

    /// Takes one of the words that `all` are asked for by.
    pub(crate) fn take_word<T: Copy, const N: usize>(
        &mut self,
        name: &'static str,
        all: [T; N],
        as_str: fn(T) -> &'static str,
    ) -> Result<Option<T>, ApiError> {
        let Some(word) = self.take_one(name)? else {
            return Ok(None);
        };
        match all.into_iter().find(|value| as_str(*value) == word) {
            Some(value) => Ok(Some(value)),
            None => Err(ApiError::invalid(name, no_word(&word, &all.map(as_str)))),
        }
    }

    /// The name of a parameter that begins like this.
    pub(crate) fn name_beginning_with(&self, prefix: &str) -> Option<String> {
        let mut names = self.pairs.iter().map(|(name, _)| name);
        names.find(|name| name.starts_with(prefix)).cloned()
    }

    /// The name of a parameter that nobody took.
    pub(crate) fn rest(&self) -> Option<&str> {
        self.pairs.first().map(|(name, _)| name.as_str())
    }
}

/// `; perhaps …`, if some of `valid` are near to `name`.
pub(crate) fn meant(name: &str, valid: &[&str]) -> String {
    match nearest(name, valid).as_slice() {
        [] => String::new(),
        near => format!("; perhaps {}", near.join(" or ")),
    }
}

/// Why `word` is refused where only `valid` are taken.
pub(crate) fn no_word(word: &str, valid: &[&str]) -> String {
    format!("must be one of {}{}", valid.join(", "), meant(word, valid))
}

/// The start of a text of the caller's, for a message.
pub(crate) fn echo(text: &str) -> String {
    text.chars().take(MAX_ECHO).collect()
}

fn decoded(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_keep_their_order_and_every_character() {
        let mut query = QueryString::parse(Some("a=1&b=x+y%2B%26%00&&a=2&c")).unwrap();
        assert_eq!(query.take_all("a"), ["1", "2"]);
        assert_eq!(query.take_one("b").unwrap().unwrap(), "x y+&\0");
        assert_eq!(query.take_one("c").unwrap().unwrap(), "");
        assert_eq!(query.take_one("d").unwrap(), None);
        assert_eq!(query.rest(), None);
    }

    #[test]
    fn a_single_parameter_given_twice_is_refused() {
        let mut query = QueryString::parse(Some("limit=1&limit=1")).unwrap();
        let error = query.take_one("limit").unwrap_err();
        assert_eq!(error.to_string(), "limit: may be given only once");
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_refused() {
        for raw in ["a=%ff", "%ff=a", "a=%c3", "a=%ed%a0%80"] {
            assert!(QueryString::parse(Some(raw)).is_err(), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(raw in ".*") {
            drop(QueryString::parse(Some(&raw)));
        }
    }
}
