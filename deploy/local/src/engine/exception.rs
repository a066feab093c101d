//! An error the way a ClickHouse server tells it: a number, a text, an HTTP status.
//!
//! Clients read the number from the header `X-ClickHouse-Exception-Code` and the text from the body, which reads
//! `Code: N. DB::Exception: … (NAME)`. After the head of an answer is out, the error goes into the body as a frame
//! marked with the tag that the head announced, and the connection is broken.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

/// `X-ClickHouse-Exception-Code`.
pub(crate) const CODE_HEADER: HeaderName = HeaderName::from_static("x-clickhouse-exception-code");
/// `X-ClickHouse-Exception-Tag`.
pub(crate) const TAG_HEADER: HeaderName = HeaderName::from_static("x-clickhouse-exception-tag");

/// An error of the engine, or of ours in the same words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exception {
    code: u32,
    text: String,
}

impl Exception {
    /// Reads the engine's own text.
    pub(crate) fn from_engine(text: String) -> Self {
        let code = text
            .strip_prefix("Code: ")
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(code, _)| code.parse().ok());
        match code {
            Some(code) => Self { code, text },
            None => Self::new(1002, "UNKNOWN_EXCEPTION", &text),
        }
    }

    fn new(code: u32, name: &str, text: &str) -> Self {
        let text = format!("Code: {code}. DB::Exception: {text}. ({name})");
        Self { code, text }
    }

    /// A statement that is not one.
    pub(crate) fn syntax(text: &str) -> Self {
        Self::new(62, "SYNTAX_ERROR", &format!("Syntax error: {text}"))
    }

    /// Something a server does and this engine does not.
    pub(crate) fn unsupported(text: &str) -> Self {
        Self::new(48, "NOT_IMPLEMENTED", text)
    }

    /// A malformed request.
    pub(crate) fn bad_request(text: &str) -> Self {
        Self::new(36, "BAD_ARGUMENTS", text)
    }

    /// Files of the machine are no part of a query over HTTP.
    pub(crate) fn outfile() -> Self {
        Self::new(
            358,
            "INTO_OUTFILE_NOT_ALLOWED",
            "INTO OUTFILE is not allowed",
        )
    }

    /// Files of the machine are no part of an insert over HTTP.
    pub(crate) fn infile() -> Self {
        Self::new(
            1,
            "UNSUPPORTED_METHOD",
            "FROM INFILE is not allowed over HTTP",
        )
    }

    /// Nobody by that name, or not that password; a server does not say which.
    pub(crate) fn authentication(user: &str) -> Self {
        let text = format!(
            "{user}: Authentication failed: password is incorrect, or there is no user with such name"
        );
        Self::new(516, "AUTHENTICATION_FAILED", &text)
    }

    /// The user may only read.
    pub(crate) fn readonly(user: &str) -> Self {
        let text = format!("{user}: Cannot execute query in readonly mode");
        Self::new(164, "READONLY", &text)
    }

    /// The limit of queries at a time is reached and stayed so.
    pub(crate) fn busy(limit: usize) -> Self {
        let text = format!("Too many simultaneous queries. Maximum: {limit}");
        Self::new(202, "TOO_MANY_SIMULTANEOUS_QUERIES", &text)
    }

    /// The client sends nothing any more.
    pub(crate) fn stalled() -> Self {
        Self::new(
            209,
            "SOCKET_TIMEOUT",
            "Timeout exceeded while reading the request body",
        )
    }

    /// The body does not end where it should.
    pub(crate) fn too_large(limit: u64) -> Self {
        let text = format!("The body of an insert is larger than {limit} bytes");
        Self::new(229, "QUERY_IS_TOO_LARGE", &text)
    }

    /// A fault of ours.
    pub(crate) fn internal(text: &str) -> Self {
        Self::new(1002, "UNKNOWN_EXCEPTION", text)
    }

    /// The status a ClickHouse server gives this error (its `exceptionCodeToHTTPStatus`).
    fn status(&self) -> StatusCode {
        match self.code {
            194 => StatusCode::UNAUTHORIZED,
            192 | 193 | 497 | 512 | 516 => StatusCode::FORBIDDEN,
            6 | 8 | 15 | 25 | 26 | 27 | 36 | 37 | 38 | 41 | 44 | 53 | 62 | 72 | 117 | 123 | 167
            | 168 | 223 | 321 | 376 | 427 | 441 | 675 | 676 => StatusCode::BAD_REQUEST,
            46 | 47 | 50 | 56 | 60 | 63 | 73 | 78 | 81 | 115 | 152 | 336 | 511 => {
                StatusCode::NOT_FOUND
            }
            229 => StatusCode::PAYLOAD_TOO_LARGE,
            48 => StatusCode::NOT_IMPLEMENTED,
            76 | 209 | 439 => StatusCode::SERVICE_UNAVAILABLE,
            381 => StatusCode::LENGTH_REQUIRED,
            159 => StatusCode::REQUEST_TIMEOUT,
            779 => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The frame that tells the error in the middle of a body: its length counts the text with its newline.
    pub(crate) fn frame(&self, tag: &str) -> String {
        let text = &self.text;
        let length = text.len() + 1;
        format!("\r\n__exception__\r\n{tag}\r\n{text}\n{length} {tag}\r\n__exception__\r\n")
    }
}

impl std::fmt::Display for Exception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl IntoResponse for Exception {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Body::from(format!("{}\n", self.text))).into_response();
        let code = HeaderValue::from(self.code);
        response.headers_mut().insert(CODE_HEADER, code);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_and_the_status_come_from_the_engines_text() {
        let text = "Code: 60. DB::Exception: Table a.b does not exist. (UNKNOWN_TABLE)";
        let exception = Exception::from_engine(text.to_owned());
        assert_eq!(exception.to_string(), text);
        assert_eq!(exception.status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_text_without_a_number_is_an_unknown_exception() {
        let exception = Exception::from_engine("no idea".to_owned());
        assert_eq!(exception.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(exception.to_string().starts_with("Code: 1002. "));
    }
}
