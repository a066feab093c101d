//! Random event data as a tree of its source text, and what redaction makes of it, done slowly.

use proptest::prelude::*;

use super::*;

/// JSON whose keys and scalars are kept as they are written.
#[derive(Debug, Clone)]
enum Tree {
    Scalar(String),
    Object(Vec<(String, Tree)>),
    List(Vec<Tree>),
}

impl Tree {
    /// Its text, with `space` wherever JSON allows it.
    fn text(&self, space: &str) -> String {
        let (open, members, close) = match self {
            Self::Scalar(source) => return source.clone(),
            Self::Object(members) => {
                let members = members.iter();
                let text = |(key, value): &(String, Self)| {
                    format!("{key}{space}:{space}{}", value.text(space))
                };
                ('{', members.map(text).collect::<Vec<_>>(), '}')
            }
            Self::List(items) => (
                '[',
                items.iter().map(|item| item.text(space)).collect(),
                ']',
            ),
        };
        let between = format!("{space},{space}");
        format!("{open}{space}{}{space}{close}", members.join(&between))
    }

    /// What has to be left of the value at `path`, keys unescaped and `*` for a place in a list.
    fn redacted(&self, path: &[String], rules: &[(Vec<&str>, &str)]) -> Option<Self> {
        let fits = |rule: &(Vec<&str>, &str)| {
            rule.0.len() == path.len()
                && rule
                    .0
                    .iter()
                    .zip(path)
                    .all(|(step, key)| *step == "*" || step == key)
        };
        let rule = rules.iter().find(|rule| fits(rule));
        let named = path.last().is_some_and(|key| names_a_secret(key));
        match rule {
            Some((steps, _)) if named && steps.last() == Some(&"*") => return None,
            Some((_, action)) => return self.after(action),
            None if named => return None,
            None => {}
        }
        let below = |key: &str| [path, &[key.to_owned()]].concat();
        Some(match self {
            Self::Scalar(_) => self.clone(),
            Self::Object(members) => Self::Object(
                members
                    .iter()
                    .filter_map(|(key, value)| {
                        Some((key.clone(), value.redacted(&below(&unescaped(key)), rules)?))
                    })
                    .collect(),
            ),
            Self::List(items) => Self::List(
                items
                    .iter()
                    .filter_map(|item| item.redacted(&below(""), rules))
                    .collect(),
            ),
        })
    }

    fn after(&self, action: &str) -> Option<Self> {
        let Self::Scalar(source) = self else {
            return None;
        };
        let text: Option<String> = serde_json::from_str(source).ok();
        let replaced = match (action, source.as_str(), text) {
            ("drop", ..) => None,
            (_, "null" | "\"\"" | "\"unknown\"", _) => Some(source.clone()),
            // What a hash is and what is truncated how, other tests say.
            ("hash", _, text) => {
                let text = text.unwrap_or_else(|| source.trim_matches('"').to_owned());
                let event = Event {
                    user_id: text.into(),
                    ..event("{}")
                };
                let hash = redaction(&rule("userId", "hash"))
                    .apply(&event)
                    .user_id
                    .clone();
                Some(format!("\"{hash}\""))
            }
            (_, _, Some(text)) => {
                let shown: String = text
                    .chars()
                    .take((text.chars().count() / 4).min(4))
                    .collect();
                Some(serde_json::to_string(&(shown + "…")).unwrap())
            }
            // Half of a surrogate pair: ten times six characters of source.
            _ => source.starts_with('"').then(|| "\"\\\\ud8…\"".to_owned()),
        };
        replaced.map(Self::Scalar)
    }
}

fn unescaped(key: &str) -> String {
    serde_json::from_str(key).unwrap_or_else(|_| key.trim_matches('"').to_owned())
}

/// Whether the last word is one of the default names.
fn names_a_secret(key: &str) -> bool {
    let mut words = String::new();
    for char in key.chars() {
        if char.is_uppercase() {
            words.push(' ');
        }
        words.push(if char.is_alphanumeric() {
            char.to_ascii_lowercase()
        } else {
            ' '
        });
    }
    let last = words.split_whitespace().last().unwrap_or_default();
    ["password", "token", "secret", "authorization"].contains(&last)
}

const KEYS: [&str; 12] = [
    r#""a""#,
    r#""b""#,
    r#""\u0061""#,
    r#""token""#,
    r#""accessToken""#,
    r#""tok\u0065n""#,
    r#""client_secret""#,
    r#""tokenType""#,
    r#""""#,
    r#""\ud800""#,
    r#""\"a\\""#,
    r#""ü:{""#,
];

const SCALARS: [&str; 14] = [
    "null",
    "true",
    "0",
    "-1.50E+3",
    "123456789012345678901234567890",
    r#""""#,
    r#""unknown""#,
    r#""x""#,
    r#""0123456789abcdef""#,
    r#""\"quoted\", \\ and {[:,]} \u00fc""#,
    r#""ü\ud83d\ude00 four or more""#,
    r#""\ud800\ud800\ud800\ud800\ud800\ud800\ud800\ud800\ud800\ud800""#,
    r#""\\""#,
    r#""\/\b""#,
];

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(&KEYS[..]).prop_map(str::to_owned)
}

/// An object; its keys may repeat.
fn data() -> impl Strategy<Value = Tree> {
    let scalar =
        prop::sample::select(&SCALARS[..]).prop_map(|source| Tree::Scalar(source.to_owned()));
    let value = scalar.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Tree::List),
            prop::collection::vec((key(), inner), 0..5).prop_map(Tree::Object),
        ]
    });
    prop::collection::vec((key(), value), 0..6).prop_map(Tree::Object)
}

fn rules() -> impl Strategy<Value = Vec<(Vec<&'static str>, &'static str)>> {
    let step =
        prop::sample::select(&["a", "b", "*", "token", "accessToken", r"\ud800", "\"a\\"][..]);
    let action = prop::sample::select(&["drop", "hash", "truncate"][..]);
    prop::collection::vec((prop::collection::vec(step, 1..4), action), 0..5)
}

/// JSON without the space between its tokens.
fn dense(json: &str) -> String {
    let (mut in_text, mut escaped) = (false, false);
    let keep = |char: &char| {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = in_text,
            '"' => in_text = !in_text,
            _ => {}
        }
        in_text || !char.is_ascii_whitespace()
    };
    json.chars().filter(keep).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_left_is_what_a_slow_reader_leaves_byte_for_byte(
        data in data(), rules in rules(), space in prop::sample::select(&["", " ", "\n\t", "\r\n "][..]),
    ) {
        let file: String = rules
            .iter()
            .map(|(steps, action)| rule(&format!("data.{}", steps.join(".")).replace('\\', r"\\").replace('"', "\\\""), action))
            .collect();
        let text = data.text(space);
        let event = event(&text);
        let redaction = redaction(&file);
        let redacted = redaction.apply(&event);
        let left = data.redacted(&[], &rules).unwrap();
        prop_assert_eq!(dense(redacted.event_data.get()), left.text(""));
        let is_copied = matches!(redacted, Cow::Owned(_));
        prop_assert_eq!(is_copied, left.text("") != data.text(""));
    }

    #[test]
    fn a_text_that_cannot_be_event_data_ends_the_walk_without_a_panic(text in r#"[{}\[\]",:\\a0ü ]{0,24}"#) {
        let rules = redaction(&rule("data.*.a", "drop"));
        let walked = Walk::new(&text, &rules, "a").redact();
        prop_assert!(walked.is_some() || EventData::parse(&text).is_err());
    }
}
