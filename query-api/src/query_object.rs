//! A question as a JSON object: the parameters of the query string, as members.
//!
//! A member is a text, a number, a boolean, or a list of those for what may be given several
//! times; `null` is as good as none. Beside the parameters it takes the objects `user` and
//! `session` as an auth server holds them: `userId` comes before `user.id` before
//! `session.user.id`, and what else is in them does not matter.

use audit_service::ApiError;
use serde_json::{Map, Value};

use crate::query_string::{QueryString, echo};

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
    for (name, value) in object {
        let values = match value {
            Value::Array(values) if values.is_empty() => {
                let reason = "is an empty list; leave it out or give it a value";
                return Err(ApiError::invalid(echo(&name), reason));
            }
            Value::Array(values) => values,
            Value::Null => continue,
            value => vec![value],
        };
        for value in values {
            let text = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(word) => word.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    let reason = "must be a text, a number, a boolean, or a list of those";
                    return Err(ApiError::invalid(echo(&name), reason));
                }
            };
            pairs.push((name.clone(), text));
        }
    }
    Ok(QueryString::of(pairs))
}

/// The id in a user object; `None` if there is no object.
fn id_of(user: &Value, path: &'static str) -> Result<Option<String>, ApiError> {
    match user {
        Value::Null => Ok(None),
        Value::Object(user) => match user.get("id") {
            Some(Value::String(id)) => Ok(Some(id.clone())),
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
