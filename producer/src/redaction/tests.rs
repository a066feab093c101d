//! Redaction of whole events, and the walk against a slow one on a tree.

mod reference;

use audit_schema::{EventType, Location};
use serde_json::Value;

use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn redaction(rules: &str) -> Redaction {
    Redaction::parse(rules, Some(&KEY.to_owned().into())).unwrap()
}

fn rule(path: &str, action: &str) -> String {
    format!("[[rules]]\npath = \"{path}\"\naction = \"{action}\"\n")
}

fn event_of(event_type: &'static str, data: &str) -> Event<'static> {
    Event::builder("acme".parse().unwrap(), EventType::new(event_type).unwrap())
        .event_key("ann@example.com")
        .identifier("ann@example.com")
        .location(Location {
            ip_address: "203.0.113.77".parse().ok(),
            ..Location::default()
        })
        .event_data(EventData::parse(data).unwrap())
        .build()
        .unwrap()
}

fn event(data: &str) -> Event<'static> {
    event_of("user_created", data)
}

fn redacted(redaction: &Redaction, data: &str) -> String {
    redaction.apply(&event(data)).event_data.get().to_owned()
}

#[test]
fn keys_that_name_a_secret_are_dropped_by_default() {
    for (before, after) in [
        (r#"{"password":"x"}"#, "{}"),
        (r#"{"token":1,"token":{"a":[1,"]"]}}"#, "{}"),
        (
            r#"{"token":1,"a":2,"token":3,"token":4,"b":5,"token":6}"#,
            r#"{"a":2,"b":5}"#,
        ),
        (
            r#"{"a":{"b":[[{"client_secret":1},{"c":1}]]}}"#,
            r#"{"a":{"b":[[{},{"c":1}]]}}"#,
        ),
        (
            r#"{"pass\u0077ord":"x","\"token\"":2,"tokenType":"B"}"#,
            r#"{"tokenType":"B"}"#,
        ),
        (
            r#"{"a":"\\","Proxy-Authorization":"\"}","b":"{"}"#,
            r#"{"a":"\\","b":"{"}"#,
        ),
        (
            "{ \"token\" : 1 ,\n \"a\" : 2.50 , \"token\" : 3 }",
            "{ \"a\" : 2.50 }",
        ),
        ("{ \"token\" : 1 }", "{  }"),
    ] {
        assert_eq!(redacted(&Redaction::default(), before), after);
    }
}

#[test]
fn what_no_rule_is_for_is_not_even_copied() {
    let odd =
        r#"{ "a" : 1.0e2,"b":"\u0000\ud800" , "a":2, "\ud800": [ ],"passwordChangedAt":null}"#;
    assert!(matches!(
        Redaction::default().apply(&event(odd)),
        Cow::Borrowed(_)
    ));
    let capture = include_str!("../../../schema/tests/fixtures/capture.ndjson");
    let mut events = 0;
    for line in capture.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if let Some(data) = line["body"].get("eventData") {
            let event = event(&data.to_string());
            assert!(
                matches!(Redaction::default().apply(&event), Cow::Borrowed(_)),
                "{data}"
            );
            events += 1;
        }
    }
    assert_eq!(events, 44);
}

#[test]
fn a_rule_that_names_a_key_goes_before_drop_keys_and_one_for_any_key_does_not() {
    let named = redaction(&rule("data.resetToken", "truncate"));
    let data = r#"{"resetToken":"0123456789abcdef","token":"0123456789abcdef"}"#;
    assert_eq!(redacted(&named, data), r#"{"resetToken":"0123…"}"#);
    let any = redaction(&rule("data.*", "truncate"));
    assert_eq!(
        redacted(&any, r#"{"token":"0123456789abcdef","a":"0123456789"}"#),
        r#"{"a":"01…"}"#
    );
}

#[test]
fn drop_keys_of_the_file_replace_the_default() {
    let own = redaction("drop_keys = [\"otp\", \"api_key\"]");
    let data = r#"{"password":1,"emailOTP":2,"email_otp":3,"X-Api-Key":4}"#;
    assert_eq!(redacted(&own, data), r#"{"password":1}"#);
    assert_eq!(
        redacted(&redaction("drop_keys = []"), r#"{"token":1}"#),
        r#"{"token":1}"#
    );
}

#[test]
fn a_path_leads_through_keys_and_lists_from_the_top() {
    let rules =
        redaction(&(rule("data.members.*.email", "drop") + &rule("data.ips.*", "truncate")));
    let data = r#"{"members":[{"email":"x","n":1},{"members":[{"email":1}]}],"email":2,"ips":["::1","203.0.113.7"]}"#;
    assert_eq!(
        redacted(&rules, data),
        r#"{"members":[{"n":1},{"members":[{"email":1}]}],"email":2,"ips":["::","203.0.113.0"]}"#
    );
}

#[test]
fn of_the_rules_for_one_value_the_first_counts() {
    let paths = ["data.a", "data.*", "identifier", "ipAddress"];
    let rules = paths
        .map(|path| rule(path, "truncate") + &rule(path, "drop"))
        .concat();
    let rules = redaction(&rules);
    let event = event(r#"{"a":"ann@example.com","b":"::1"}"#);
    let redacted = rules.apply(&event);
    assert_eq!(
        redacted.event_data.get(),
        r#"{"a":"a…@example.com","b":"::"}"#
    );
    assert_eq!(redacted.identifier, "a…@example.com");
    assert_eq!(redacted.location.ip_address, "203.0.113.0".parse().ok());
}

#[test]
fn a_rule_is_for_its_types_under_either_name() {
    let touches = |types: &str, event_type| {
        let rule = |path| {
            format!("[[rules]]\ntypes = [\"{types}\"]\npath = \"{path}\"\naction = \"drop\"\n")
        };
        let event = event_of(event_type, r#"{"a":1}"#);
        let redaction = redaction(&(rule("identifier") + &rule("data.a")));
        let redacted = redaction.apply(&event);
        let field = redacted.identifier.is_empty();
        assert_eq!(field, redacted.event_data.get() == "{}");
        field
    };
    for types in [
        "user_created",
        "user_signed_up",
        "user_s*",
        "user_created*",
        "*",
    ] {
        assert!(touches(types, "user_created"), "{types}");
        assert!(touches(types, "user_signed_up"), "{types}");
    }
    for types in ["user", "session_*", "user_signed_in"] {
        assert!(!touches(types, "user_created"), "{types}");
    }
    assert!(touches("invoice.*", "invoice.paid"));
    // Which documented type they are is in their data.
    assert!(touches("security_geo_blocked", "security_signal"));
    assert!(touches("security_blocked", "security_check"));
    assert!(!touches("security_check", "security_blocked"));
}

#[test]
fn equal_texts_are_equal_hashes_wherever_they_stand() {
    let paths = ["eventKey", "identifier", "data.userEmail", "userId"];
    let event = event(r#"{"userEmail":"ann\u0040example.com"}"#);
    let redaction = redaction(&paths.map(|path| rule(path, "hash")).concat());
    let redacted = redaction.apply(&event);
    let hash = "hmac:093e3dd9df951c5008225d533a017547";
    assert_eq!(redacted.event_key, hash);
    assert_eq!(redacted.identifier, hash);
    assert_eq!(
        redacted.event_data.get(),
        format!("{{\"userEmail\":\"{hash}\"}}")
    );
    assert_eq!(redacted.user_id, "", "what is not given stays so");
}

#[test]
fn every_field_a_rule_can_name_is_redacted() {
    let mut event = event("{}");
    for field in [
        &mut event.event_display_name,
        &mut event.user_id,
        &mut event.organization_id,
        &mut event.actor.id,
        &mut event.session_id,
        &mut event.request_id,
        &mut event.user_agent,
        &mut event.location.city,
        &mut event.location.country,
        &mut event.location.country_code,
    ] {
        *field = "ann@example.com".into();
    }
    let rules: String = rules::Field::NAMES
        .iter()
        .map(|name| rule(name, if *name == "eventKey" { "hash" } else { "drop" }))
        .collect();
    let redacted = redaction(&rules).apply(&event).into_owned();
    assert!(!format!("{redacted:?}").contains("ann"), "{redacted:?}");
    assert!(!format!("{redacted:?}").contains("203"), "{redacted:?}");
}

#[test]
fn keys_that_say_nothing_stay_apart() {
    let rules = redaction(&rule("eventKey", "hash"));
    for key in ["", "unknown"] {
        let event = Event {
            event_key: key.into(),
            ..event("{}")
        };
        assert_eq!(rules.apply(&event).event_key, key);
    }
}

fn refusal(rules: &str, key: Option<&str>) -> String {
    let key = key.map(|key| HashKey::from(key.to_owned()));
    Redaction::parse(rules, key.as_ref())
        .unwrap_err()
        .to_string()
}

#[test]
fn a_rule_file_that_is_not_understood_is_refused_with_what_to_mend() {
    let cases = [
        (
            "[[rules]]\npath = \"city\"\naction = \"shred\"",
            "line 3",
            "unknown variant `shred`, expected one of `drop`, `hash`, `truncate`",
        ),
        (
            "dropkeys = []",
            "line 1",
            "unknown field `dropkeys`, expected `drop_keys` or `rules`",
        ),
        (
            "[[rules]]\ntype = []",
            "line 2",
            "unknown field `type`, expected one of `types`, `path`, `action`",
        ),
        ("drop_keys = [\"-\"]", "line 1", "needs a letter or a digit"),
        (
            "[[rules]]\npath = \"\"",
            "line 2",
            "`` is no field of an event",
        ),
        (
            "[[rules]]\npath = \"userEmail\"",
            "line 2",
            "write `data.userEmail` if it is a key of the event data, or one of eventKey, ",
        ),
        (
            "[[rules]]\npath = \"data\"",
            "line 2",
            "a path names keys: `data.userEmail`",
        ),
        (
            "[[rules]]\npath = \"data.a..b\"",
            "line 2",
            "a path names keys",
        ),
        (
            "[[rules]]\npath = \"data.user*\"",
            "line 2",
            "a `*` in a path is for a whole key",
        ),
        (
            "[[rules]]\npath = \"projectId\"",
            "line 2",
            "`projectId` stays as it is",
        ),
        (
            "[[rules]]\ntypes = [\"a b\"]",
            "line 2",
            "\"a b\" names no event type",
        ),
        (
            "[[rules]]\ntypes = [\"user_*_in\"]",
            "line 2",
            "names no event type",
        ),
        (
            "[[rules]]\ntypes = []",
            "line 2",
            "leave `types` out for every type",
        ),
        ("[[rules]\npath", "line 1", "unclosed array table"),
    ];
    for (rules, line, why) in cases {
        let message = refusal(rules, Some(KEY));
        assert!(message.contains(line) && message.contains(why), "{message}");
    }
}

#[test]
fn a_rule_that_cannot_be_kept_is_refused_by_its_number() {
    for (second, why) in [
        (
            "path = \"city\"",
            "has no `action`: write drop, hash or truncate",
        ),
        ("action = \"drop\"", "has no `path`"),
        (
            "path = \"eventKey\"\naction = \"truncate\"",
            "would mix up the order of events, which follows `eventKey`: hash it",
        ),
        (
            "path = \"ipAddress\"\naction = \"hash\"",
            "cannot hash `ipAddress`, which holds no text: truncate or drop it",
        ),
    ] {
        let rules = format!("{}[[rules]]\n{second}", rule("city", "drop"));
        assert_eq!(
            refusal(&rules, Some(KEY)),
            format!("the rules are refused: rule 2 {why}")
        );
    }
}

#[test]
fn hashes_need_a_long_key_that_does_not_print() {
    assert_eq!(
        refusal(&rule("city", "hash"), None),
        "the rules are refused: rule 1 hashes, which needs the setting `hash_key`: a secret text of 32 characters or more"
    );
    assert_eq!(
        refusal("", Some("short")),
        "the hash key has 5 characters; it needs at least 32"
    );
    let config: RedactionConfig = toml::from_str(&format!("hash_key = \"{KEY}\"")).unwrap();
    let redaction = Redaction::load(&config).unwrap();
    assert!(!format!("{config:?} {redaction:?}").contains(KEY));
}

#[test]
fn a_refused_file_is_named() {
    let missing = RedactionConfig {
        file: Some("/no/such/rules.toml".into()),
        hash_key: None,
    };
    let message = Redaction::load(&missing).unwrap_err().to_string();
    assert!(
        message.starts_with("the rule file /no/such/rules.toml cannot be read: "),
        "{message}"
    );
    let not_rules = RedactionConfig {
        file: Some(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into()),
        hash_key: None,
    };
    let message = Redaction::load(&not_rules).unwrap_err().to_string();
    assert!(
        message.contains("producer/Cargo.toml is refused: TOML parse error at line 1"),
        "{message}"
    );
    assert!(toml::from_str::<RedactionConfig>("path = \"x\"").is_err());
}
