//! The members of a JSON object that is known to be valid, as they are written.
//!
//! Reading facts is done for every event, and what surrounds them was checked when the event was
//! decoded: here nothing is checked again, texts are stepped over and not read. In what is no valid
//! object the walk ends early, or gives pieces of it; it never fails.

use memchr::memchr2;

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
    /// Name and value, both as they are written: a name with its quotes and escapes.
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.token(|byte| matches!(byte, b'{' | b',' | b' ' | b'\t' | b'\n' | b'\r'))?;
        // Behind the last member the object ends.
        if !name.starts_with('"') {
            return None;
        }
        let value = self.token(|byte| matches!(byte, b':' | b' ' | b'\t' | b'\n' | b'\r'))?;
        Some((name, value))
    }
}

impl<'a> Members<'a> {
    /// The next name or value behind what is `between`.
    #[inline]
    fn token(&mut self, between: impl Fn(u8) -> bool) -> Option<&'a str> {
        let bytes = self.object.as_bytes().get(self.at..)?;
        let before = bytes.iter().position(|byte| !between(*byte))?;
        let bytes = bytes.get(before..)?;
        let length = match bytes.first()? {
            b'"' => text(bytes)?,
            b'{' | b'[' => nested(bytes)?,
            _ => bytes.iter().position(|byte| {
                matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r')
            })?,
        };
        let start = self.at.checked_add(before)?;
        self.at = start.checked_add(length)?;
        self.object.get(start..self.at)
    }
}

/// The length of the text that `bytes` begin with, with its quotes.
#[inline]
fn text(bytes: &[u8]) -> Option<usize> {
    let mut at = 1_usize;
    loop {
        let rest = bytes.get(at..)?;
        let found = memchr2(b'"', b'\\', rest)?;
        at = at.checked_add(found)?;
        if bytes.get(at) == Some(&b'"') {
            return at.checked_add(1);
        }
        // What is escaped ends no text.
        at = at.checked_add(2)?;
    }
}

/// The length of the object or array that `bytes` begin with.
fn nested(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0_usize, 0_usize);
    loop {
        let mut step = 1;
        match bytes.get(at)? {
            b'"' => step = text(bytes.get(at..)?)?,
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
        let read = |text| serde_json::from_str::<Value>(text).unwrap();
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
        let found: Vec<_> = members(spaced).collect();
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
