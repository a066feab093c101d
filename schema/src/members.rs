//! The members of a JSON object that is known to be valid, as they are written.
//!
//! Reading facts is done for every event, and what surrounds them was checked when the event was
//! decoded: here nothing is checked again, texts are stepped over and not read. In what is no valid
//! object the walk ends early, or gives pieces of it; it never fails.

use memchr::memchr2;

/// A name or a value, as it is written: a text with its quotes and escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// All of it.
    pub(crate) written: &'a str,
    /// Whether it is a text that is not what stands between its quotes.
    pub(crate) escaped: bool,
}

/// Names and values of one object, one level deep, in their order.
#[derive(Debug)]
pub(crate) struct Members<'a> {
    object: &'a str,
    at: usize,
}

/// The members of a valid `object`.
pub(crate) fn members(object: &str) -> Members<'_> {
    Members { object, at: 0 }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Token<'a>, Token<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.token(|byte| matches!(byte, b'{' | b',' | b' ' | b'\t' | b'\n' | b'\r'))?;
        // Behind the last member the object ends.
        if !name.written.starts_with('"') {
            return None;
        }
        let value = self.token(|byte| matches!(byte, b':' | b' ' | b'\t' | b'\n' | b'\r'))?;
        Some((name, value))
    }
}

impl<'a> Members<'a> {
    /// The next name or value behind what is `between`.
    #[inline]
    fn token(&mut self, between: impl Fn(u8) -> bool) -> Option<Token<'a>> {
        let bytes = self.object.as_bytes().get(self.at..)?;
        let before = bytes.iter().position(|byte| !between(*byte))?;
        let bytes = bytes.get(before..)?;
        let (length, escaped) = match bytes.first()? {
            b'"' => text(bytes)?,
            b'{' | b'[' => (nested(bytes)?, false),
            _ => {
                let end =
                    |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
                (bytes.iter().position(end)?, false)
            }
        };
        let start = self.at.checked_add(before)?;
        self.at = start.checked_add(length)?;
        let written = self.object.get(start..self.at)?;
        Some(Token { written, escaped })
    }
}

/// The length of the text that `bytes` begin with, with its quotes, and whether it has escapes.
#[inline]
fn text(bytes: &[u8]) -> Option<(usize, bool)> {
    let (mut at, mut escaped) = (1_usize, false);
    loop {
        let found = memchr2(b'"', b'\\', bytes.get(at..)?)?;
        at = at.checked_add(found)?;
        if bytes.get(at) == Some(&b'"') {
            return Some((at.checked_add(1)?, escaped));
        }
        // What is escaped ends no text.
        at = at.checked_add(2)?;
        escaped = true;
    }
}

/// The length of the object or array that `bytes` begin with.
fn nested(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0_usize, 0_usize);
    loop {
        let mut step = 1;
        match bytes.get(at)? {
            b'"' => step = text(bytes.get(at..)?)?.0,
            b'{' | b'[' => depth = depth.checked_add(1)?,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at = at.checked_add(step)?;
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    fn read(object: &str) -> Map<String, Value> {
        let read = |token: Token<'_>| serde_json::from_str::<Value>(token.written).unwrap();
        members(object)
            .map(|(name, value)| (read(name).as_str().unwrap().to_owned(), read(value)))
            .collect()
    }

    #[test]
    fn members_stand_between_any_white_space() {
        for object in ["{}", " { } ", "{\n}"] {
            assert_eq!(members(object).count(), 0, "{object:?}");
        }
        let spaced = "\n{ \"a\" :\t1 ,\r\n\"b\":[ {\"c\":\"]}\\\"\"} , 2 ]\n}";
        let found: Vec<_> = members(spaced)
            .map(|(name, value)| (name.written, value.written))
            .collect();
        assert_eq!(
            found,
            [("\"a\"", "1"), ("\"b\"", r#"[ {"c":"]}\""} , 2 ]"#)]
        );
    }

    fn json() -> impl Strategy<Value = Value> {
        let text = "[a\"\\\\{}\\[\\]:, \u{e9}\u{1f600}\n]{0,12}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(text, inner, 0..4)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_member_of_an_object_is_found(
            members in prop::collection::hash_map(".{0,6}", json(), 0..6), pretty: bool,
        ) {
            let object: Map<String, Value> = members.into_iter().collect();
            let text = if pretty {
                serde_json::to_string_pretty(&object).unwrap()
            } else {
                serde_json::to_string(&object).unwrap()
            };
            prop_assert_eq!(read(&text), object);
        }

        #[test]
        fn any_text_comes_to_an_end(text: String, odd in "[{}\\[\\]\":,\\\\ a1]{0,40}") {
            prop_assert!(members(&text).count() <= text.len());
            prop_assert!(members(&odd).count() <= odd.len());
        }
    }
}
