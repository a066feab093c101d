//! What a request asks for, apart from the rows of an insert: statement, settings, parameters, who asks.
//!
//! The words are those of a ClickHouse server's HTTP interface. What this engine cannot do is refused in words, never
//! ignored, unless it only concerns speed or display.

use std::collections::HashSet;

use axum::extract::Query;
use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, Uri};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::exception::Exception;
use super::library::Parameter;

/// Parameters of the interface that this engine does not need to know.
const IGNORED: [&str; 7] = [
    "buffer_size",
    "close_session",
    "http_keep_alive",
    "quota_key",
    "session_check",
    "session_timeout",
    "stacktrace",
];

/// Who asks. To the engine all are its one user; what an analyst may not is kept from them here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// `default`: whatever the engine's configuration grants.
    Default,
    /// `analyst`: reads, within limits.
    Analyst,
}

/// What lets users in; a user without one needs none.
#[derive(Debug, Default)]
pub(crate) struct Passwords {
    pub(crate) default: Option<String>,
    pub(crate) analyst: Option<String>,
}

/// A request without its body.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// The start of the statement; the body continues it.
    pub(crate) query: Vec<u8>,
    pub(crate) database: Option<String>,
    pub(crate) default_format: Option<String>,
    /// Bound to `{name:Type}`.
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) query_id: Option<String>,
    /// Answer only when all of the answer is there.
    pub(crate) whole: bool,
    /// The body is a form, not the statement's continuation.
    pub(crate) boundary: Option<String>,
    user: Option<String>,
    password: Option<String>,
}

impl Asked {
    pub(crate) fn read(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Self, Exception> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Exception::bad_request(&error.to_string()))?;
        let mut asked = Self::default();
        for (name, value) in pairs {
            asked.take(name, value)?;
        }
        asked.take_headers(headers)?;
        if method == Method::GET && !asked.settings.iter().any(|(name, _)| name == "readonly") {
            asked.settings.push(("readonly".to_owned(), "2".to_owned()));
        }
        Ok(asked)
    }

    fn take(&mut self, name: String, value: String) -> Result<(), Exception> {
        let refuse = |what: &str| Err(Exception::unsupported(what));
        match name.as_str() {
            "query" => self.query = value.into_bytes(),
            "database" => self.database = Some(value),
            "default_format" => self.default_format = Some(value),
            "query_id" => self.query_id = Some(value),
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "wait_end_of_query" => self.whole = value == "1",
            "decompress" | "compress" if value == "1" => {
                return refuse(
                    "The embedded engine neither takes nor makes compressed bodies: turn compression off in the client",
                );
            }
            "session_id" => return refuse("The embedded engine has no sessions: leave session_id"),
            "role" => return refuse("The embedded engine has no roles: leave role"),
            "client_protocol_version" if value != "0" => {
                return refuse("The embedded engine writes Native of protocol version 0 only");
            }
            "decompress" | "compress" | "client_protocol_version" => {}
            ignored if IGNORED.contains(&ignored) => {}
            _ => match name.strip_prefix("param_") {
                Some(parameter) => self
                    .parameters
                    .push((parameter.to_owned(), value.into_bytes())),
                None => self.settings.push((name, value)),
            },
        }
        Ok(())
    }

    fn take_headers(&mut self, headers: &HeaderMap) -> Result<(), Exception> {
        let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        if text(CONTENT_ENCODING.as_str()).is_some_and(|encoding| encoding != "identity") {
            return Err(Exception::unsupported(
                "The embedded engine takes no compressed bodies: leave Content-Encoding",
            ));
        }
        self.database = self.database.take().or(text("x-clickhouse-database"));
        self.default_format = self.default_format.take().or(text("x-clickhouse-format"));
        self.user = self.user.take().or(text("x-clickhouse-user"));
        self.password = self.password.take().or(text("x-clickhouse-key"));
        if let Some((user, password)) = text(AUTHORIZATION.as_str()).as_deref().and_then(basic) {
            self.user = Some(user);
            self.password = Some(password);
        }
        self.boundary = text(CONTENT_TYPE.as_str()).as_deref().and_then(boundary);
        Ok(())
    }

    /// Says who asks, if they may.
    pub(crate) fn authenticate(&self, passwords: &Passwords) -> Result<User, Exception> {
        let name = self.user.as_deref().filter(|name| !name.is_empty());
        let name = name.unwrap_or("default");
        let given = self.password.as_deref().unwrap_or_default();
        let (user, password) = match name {
            "default" => (User::Default, &passwords.default),
            // Where `default` needs a password and this one has none, nobody is let in by it.
            "analyst" if passwords.analyst.is_some() || passwords.default.is_none() => {
                (User::Analyst, &passwords.analyst)
            }
            _ => return Err(Exception::authentication(name)),
        };
        if password
            .as_deref()
            .is_none_or(|password| same(password, given))
        {
            Ok(user)
        } else {
            Err(Exception::authentication(name))
        }
    }

    /// Takes the fields of a form: `query` and `param_…`.
    pub(crate) fn take_form(&mut self, boundary: &str, body: &[u8]) -> Result<(), Exception> {
        for (name, value) in fields(boundary, body)
            .ok_or_else(|| Exception::bad_request("The body is not the form it says it is"))?
        {
            if name == "query" {
                self.query.extend_from_slice(value);
            } else if let Some(parameter) = name.strip_prefix("param_") {
                self.parameters.push((parameter.to_owned(), value.to_vec()));
            } else {
                return Err(Exception::unsupported(
                    "The embedded engine takes no external tables",
                ));
            }
        }
        Ok(())
    }

    /// `SET` for all settings at once, with `log_comment` telling this request from all others. One statement, because
    /// `readonly` holds from the next one on; the last of two values for one name counts.
    pub(crate) fn set_statement(&self, log_comment: &str) -> String {
        let mut seen = HashSet::from(["log_comment"]);
        let mut sql = format!("SET log_comment = {}", quoted(log_comment, '\''));
        for (name, value) in self.settings.iter().rev() {
            if seen.insert(name.as_str()) {
                sql.push_str(", ");
                sql.push_str(&quoted(name, '`'));
                sql.push_str(" = ");
                sql.push_str(&quoted(value, '\''));
            }
        }
        sql
    }

    /// `USE` for the database asked for.
    pub(crate) fn use_statement(&self) -> Option<String> {
        let database = self.database.as_deref().filter(|name| !name.is_empty())?;
        Some(format!("USE {}", quoted(database, '`')))
    }

    /// The comment the client wants to see on its query.
    pub(crate) fn comment(&self) -> Option<&str> {
        let setting = self.settings.iter().rev();
        let setting = setting
            .filter(|(name, _)| name == "log_comment")
            .map(|(_, value)| value);
        setting
            .chain(&self.query_id)
            .map(String::as_str)
            .find(|text| !text.is_empty())
    }
}

/// A text in quotes that the engine reads as that very text.
pub(crate) fn quoted(text: &str, quote: char) -> String {
    let mut quoted = String::from(quote);
    for c in text.chars() {
        if c == quote || c == '\\' {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push(quote);
    quoted
}

/// Compares in a time that does not depend on where the first difference is.
fn same(a: &str, b: &str) -> bool {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(a) == Sha256::digest(b)
}

fn basic(header: &str) -> Option<(String, String)> {
    let decoded = BASE64_STANDARD
        .decode(header.strip_prefix("Basic ")?.trim())
        .ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn boundary(content_type: &str) -> Option<String> {
    let (kind, rest) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = rest.trim().strip_prefix("boundary=")?;
    Some(value.trim_matches('"').to_owned())
}

/// The fields of a `multipart/form-data` body; `None` if it is not one.
fn fields<'body>(boundary: &str, mut body: &'body [u8]) -> Option<Vec<(&'body str, &'body [u8])>> {
    let first = format!("--{boundary}");
    let next = format!("\r\n--{boundary}");
    body = body
        .strip_prefix(first.as_bytes())
        .or_else(|| body.strip_prefix(next.as_bytes()))?;
    let mut fields = Vec::new();
    while !body.starts_with(b"--") {
        let (head, rest) = split_at(body.strip_prefix(b"\r\n")?, b"\r\n\r\n")?;
        let (value, rest) = split_at(rest, next.as_bytes())?;
        let (_, name) = std::str::from_utf8(head).ok()?.split_once(" name=\"")?;
        fields.push((name.split_once('"')?.0, value));
        body = rest;
    }
    Some(fields)
}

fn split_at<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes
        .windows(mark.len())
        .position(|window| window == mark)?;
    Some((bytes.get(..at)?, bytes.get(at + mark.len()..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_form_gives_the_query_and_its_parameters() {
        let body = b"--B\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT {a:String}\r\n--B\r\nContent-Disposition: form-data; name=\"param_a\"\r\n\r\nx\r\n-\r\n--B--\r\n";
        let mut asked = Asked::default();
        assert_eq!(asked.take_form("B", body), Ok(()));
        assert_eq!(asked.query, b"SELECT {a:String}");
        assert_eq!(asked.parameters, [("a".to_owned(), b"x\r\n-".to_vec())]);
        assert!(asked.take_form("C", body).is_err());
    }

    #[test]
    fn quotes_cannot_be_left_from_within() {
        assert_eq!(quoted(r"a'b\", '\''), r"'a\'b\\'");
        assert_eq!(quoted("a`b", '`'), r"`a\`b`");
    }

    #[test]
    fn the_last_value_of_a_setting_counts() {
        let mut asked = Asked::default();
        for value in ["1", "2"] {
            asked.settings.push(("a".to_owned(), value.to_owned()));
        }
        assert_eq!(
            asked.set_statement("id"),
            "SET log_comment = 'id', `a` = '2'"
        );
    }

    #[test]
    fn a_password_is_asked_for_only_where_there_is_one() {
        let (open, closed) = (Passwords::default(), passwords(Some("x"), None));
        let mut asked = Asked::default();
        assert_eq!(asked.authenticate(&open), Ok(User::Default));
        assert!(asked.authenticate(&closed).is_err());
        asked.password = Some("x".to_owned());
        assert_eq!(asked.authenticate(&closed), Ok(User::Default));
        asked.user = Some("root".to_owned());
        assert!(asked.authenticate(&open).is_err());
    }

    fn passwords(default: Option<&str>, analyst: Option<&str>) -> Passwords {
        Passwords {
            default: default.map(ToOwned::to_owned),
            analyst: analyst.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn an_analyst_has_a_password_of_their_own_or_is_as_free_as_everybody() {
        let mut asked = Asked {
            user: Some("analyst".to_owned()),
            ..Asked::default()
        };
        assert_eq!(
            asked.authenticate(&passwords(None, None)),
            Ok(User::Analyst)
        );
        assert!(asked.authenticate(&passwords(Some("x"), None)).is_err());
        asked.password = Some("x".to_owned());
        assert!(asked.authenticate(&passwords(Some("x"), None)).is_err());
        assert!(
            asked
                .authenticate(&passwords(Some("x"), Some("y")))
                .is_err()
        );
        asked.password = Some("y".to_owned());
        assert_eq!(
            asked.authenticate(&passwords(Some("x"), Some("y"))),
            Ok(User::Analyst)
        );
    }

    proptest! {
        #[test]
        fn reading_a_form_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            fields("B", &body);
        }

        #[test]
        fn any_value_survives_a_form(value in proptest::collection::vec(any::<u8>(), 0..50)) {
            let head = b"--bound-ary\r\nContent-Disposition: form-data; name=\"param_a\"\r\n\r\n";
            let body = [&head[..], &value, b"\r\n--bound-ary--\r\n"].concat();
            prop_assert_eq!(fields("bound-ary", &body), Some(vec![("param_a", &value[..])]));
        }
    }
}
