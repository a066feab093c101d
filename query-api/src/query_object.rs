//! A question as a JSON object: the parameters of the query string, as members.
//!
//! A member is a text, or a list of texts for what may be given several times; `null` is as good as
//! none. Numbers are what a parameter counts or a time is, and numbers and booleans what event data
//! may hold. The objects `data` and `not.data` hold paths and their values, so that a type can be
//! written for them: `{"data": {"loginMethod": "passkey"}}` is `{"data.loginMethod": "passkey"}`.
//!
//! Beside the parameters it takes the objects `user` and `session` as an auth server holds them:
//! `userId` comes before `user.id` before `session.user.id`, and what else is in them does not
//! matter.

use audit_service::ApiError;
use serde_json::{Map, Value};

use crate::filter::NOT;
use crate::filter::field::DATA;
use crate::query_string::{QueryString, echo};

/// The members that are numbers, and those that may be.
const COUNTS: [&str; 2] = ["limit", "offset"];
const TIMES: [&str; 2] = ["from", "to"];

/// The parameters that `body` stands for.
pub(crate) fn parse(body: &[u8]) -> Result<QueryString, ApiError> {
    let mut object: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid("body", format!("is no JSON object: {error}")))?;
    let user = object.remove("user").unwrap_or_default();
    let session = object.remove("session").unwrap_or_default();
    let of_user = id_of(&user, "user.id")?;
    let of_session = match &session {
        Value::Object(session) => {
            let user = session.get("user").unwrap_or(&Value::Null);
            let id = id_of(user, "session.user.id")?;
            Some(id.ok_or_else(|| missing("session.user.id"))?)
        }
        Value::Null => None,
        _ => return Err(ApiError::invalid("session", "must be an object")),
    };
    let mut pairs = Vec::new();
    let named = object.get("userId").is_some_and(|id| !id.is_null());
    if let (false, Some(id)) = (named, of_user.or(of_session)) {
        pairs.push(("userId".to_owned(), id));
    }
    for prefix in [DATA.to_owned(), format!("{NOT}{DATA}")] {
        let name = prefix.trim_end_matches('.');
        let places = match object.remove(name) {
            None | Some(Value::Null) => continue,
            Some(Value::Object(places)) => places,
            Some(_) => {
                let reason = "must be an object of paths and their values";
                return Err(ApiError::invalid(name.to_owned(), reason));
            }
        };
        for (path, value) in places {
            take(&mut pairs, &format!("{prefix}{path}"), value)?;
        }
    }
    for (name, value) in object {
        take(&mut pairs, &name, value)?;
    }
    Ok(QueryString::of(pairs))
}

/// Takes the values of one parameter.
fn take(pairs: &mut Vec<(String, String)>, name: &str, value: Value) -> Result<(), ApiError> {
    let values = match value {
        Value::Array(values) if values.is_empty() => {
            let reason = "is an empty list; leave it out or give it a value";
            return Err(ApiError::invalid(echo(name), reason));
        }
        Value::Array(values) => values,
        Value::Null => return Ok(()),
        value => vec![value],
    };
    for value in values {
        let text = text(name, &value).map_err(|reason| ApiError::invalid(echo(name), reason))?;
        pairs.push((name.to_owned(), text));
    }
    Ok(())
}

/// A value as the query string has it, or why it is none.
fn text(name: &str, value: &Value) -> Result<String, &'static str> {
    let is_data = name.strip_prefix(NOT).unwrap_or(name).starts_with(DATA);
    let is_count = COUNTS.contains(&name);
    match value {
        Value::String(text) if !is_count => Ok(text.clone()),
        Value::Number(number) if is_data => Ok(number.to_string()),
        // To JSON Schema 10.0 is a whole number.
        Value::Number(number) if is_count || TIMES.contains(&name) => {
            let text = number.to_string();
            Ok(text.strip_suffix(".0").unwrap_or(&text).to_owned())
        }
        Value::Bool(word) if is_data => Ok(word.to_string()),
        _ if is_count => Err("must be a number"),
        _ if is_data => Err("must be a text, a number, a boolean, or a list of those"),
        _ => Err("must be a text or a list of texts"),
    }
}

/// The id in a user object; `None` if there is no object.
fn id_of(user: &Value, path: &'static str) -> Result<Option<String>, ApiError> {
    match user {
        Value::Null => Ok(None),
        Value::Object(user) => match user.get("id") {
            Some(Value::String(id)) if !id.is_empty() => Ok(Some(id.clone())),
            _ => Err(missing(path)),
        },
        _ => Err(ApiError::invalid(path, "is missing: its user is no object")),
    }
}

fn missing(path: &'static str) -> ApiError {
    ApiError::invalid(path, "must be a text; without it all users would be meant")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(body: &str) -> Result<QueryString, String> {
        parse(body.as_bytes()).map_err(|error| error.to_string())
    }

    fn user(body: &str) -> Vec<String> {
        parsed(body).unwrap().take_all("userId")
    }

    #[test]
    fn members_are_parameters() {
        let body = r#"{"limit": 10, "offset": 0, "organizationId": "o1", "identifier": null,
            "eventType": ["user_signed_in", "member_added"], "data.isNewUser": true}"#;
        let mut query = parsed(body).unwrap();
        assert_eq!(query.take_all("limit"), ["10"]);
        assert_eq!(query.take_all("offset"), ["0"]);
        assert_eq!(query.take_all("organizationId"), ["o1"]);
        assert_eq!(query.take_all("identifier"), [""; 0]);
        assert_eq!(
            query.take_all("eventType"),
            ["user_signed_in", "member_added"]
        );
        assert_eq!(query.take_all("data.isNewUser"), ["true"]);
        assert_eq!(query.rest(), None);
    }

    #[test]
    fn members_may_be_what_json_has_and_a_query_string_has_not() {
        let body = r#"{"data": {"attempt": [1, 2], "a.b": "x"}, "not.data": {"isNewUser": true},
            "data.c": "y", "from": 1700000000000, "limit": 10.0}"#;
        let mut query = parsed(body).unwrap();
        assert_eq!(query.take_all("data.attempt"), ["1", "2"]);
        assert_eq!(query.take_all("data.a.b"), ["x"]);
        assert_eq!(query.take_all("not.data.isNewUser"), ["true"]);
        assert_eq!(query.take_all("data.c"), ["y"]);
        assert_eq!(query.take_all("from"), ["1700000000000"]);
        assert_eq!(query.take_all("limit"), ["10"]);
        assert_eq!(query.rest(), None);
    }

    #[test]
    fn the_user_is_named_before_the_sessions_user() {
        let session = r#""session": {"session": {"token": "t"}, "user": {"id": "s", "name": "n"}}"#;
        assert_eq!(
            user(&format!(
                r#"{{"userId": "u", "user": {{"id": "v"}}, {session}}}"#
            )),
            ["u"]
        );
        assert_eq!(
            user(&format!(
                r#"{{"user": {{"id": "v", "email": null}}, {session}}}"#
            )),
            ["v"]
        );
        assert_eq!(user(&format!(r#"{{"userId": null, {session}}}"#)), ["s"]);
        assert_eq!(user(r#"{"user": null, "session": null}"#), [""; 0]);
    }

    #[test]
    fn an_object_that_could_mean_more_than_it_says_is_refused() {
        let refusals: Vec<_> = [
            "",
            "[]",
            r#"{"limit": 10"#,
            r#"{"session": {}}"#,
            r#"{"session": {"user": {}}}"#,
            r#"{"session": "s"}"#,
            r#"{"user": {"id": 7}}"#,
            r#"{"user": "u"}"#,
            r#"{"userId": []}"#,
            r#"{"userId": [null]}"#,
            r#"{"userId": {"eq": "u"}}"#,
            r#"{"userId": 7}"#,
            r#"{"user": {"id": ""}}"#,
            r#"{"limit": "10"}"#,
            r#"{"data": "loginMethod"}"#,
            r#"{"not.data": {"a": {"b": 1}}}"#,
        ]
        .into_iter()
        .map(|body| parsed(body).map(drop).unwrap_err())
        .collect();
        insta::assert_snapshot!(refusals.join("\n"));
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes: Vec<u8>, text in r#"[\[\]{}":,a-z0-9]{0,60}"#) {
            drop(parse(&bytes));
            drop(parse(text.as_bytes()));
        }
    }
}
