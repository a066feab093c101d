//! The one error of the HTTP APIs.
//!
//! Every refusal is `{ "error": { "code", "message", "requestId" } }`. The code is for programs,
//! the message says what to change. What went wrong inside is logged once, under the request's
//! id, and never sent.
//!
//! An [`ApiError`] becomes an answer without a body; [`http::finish`](crate::http::finish), which
//! knows the request's id, writes the body.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{CONNECTION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::keys::Scope;
use crate::rate_limit::whole_seconds;

/// Why a request was not answered as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// 401: no key, or one nobody knows.
    #[error("send a valid API key as x-api-key or as Authorization: Bearer")]
    Unauthorized,
    /// 403: the key may not do this.
    #[error("this key needs the scope {}", .0.as_str())]
    Forbidden(Scope),
    /// 400: a part of the request is wrong.
    #[error("{field}: {reason}")]
    Invalid {
        /// The parameter, header or path of the field in the body.
        field: Cow<'static, str>,
        /// What to change.
        reason: String,
    },
    /// 404: nothing is here.
    #[error("there is nothing at this path")]
    NotFound,
    /// 405: another method is needed; the header `Allow` names it.
    #[error("this path does not take this method; see the header Allow")]
    MethodNotAllowed,
    /// 408: the body did not come; the connection is closed.
    #[error("the body did not come within {} s; send it at once", .0.as_secs_f32())]
    TooSlow(Duration),
    /// 413: more bytes than are taken.
    #[error("too large; at most {0} bytes are taken")]
    TooLarge(usize),
    /// 415: the body is of another type.
    #[error("send the body as application/json")]
    UnsupportedMediaType,
    /// 400: the page the cursor points to, or the state that `asOf` names, cannot be read by this
    /// request.
    #[error(
        "this cursor or asOf can no longer be continued, or belongs to another filter, project or \
         key; start again without it"
    )]
    StaleCursor,
    /// 422: the query would cost more than one request may.
    #[error("this asks for more than one request may read; narrow the time or add a filter")]
    TooBroad,
    /// 429: the key has used up what it may ask; the answer says when it may again.
    #[error(
        "this key may make {requests} requests per {} s and has made them; try again in {} s",
        .per.as_secs(), whole_seconds(*.retry_after)
    )]
    RateLimited {
        /// How many requests the key has.
        requests: u32,
        /// In which time.
        per: Duration,
        /// When the next one may come.
        retry_after: Duration,
    },
    /// 429: others are being served; try again.
    #[error("too many requests at once; try again")]
    Overloaded {
        /// When to try again; at least a second.
        retry_after: Duration,
    },
    /// 503: something we need is away; try again.
    #[error("{reason}; try again")]
    Unavailable {
        /// What the caller may know of it.
        reason: &'static str,
        /// When to try again; at least a second.
        retry_after: Duration,
    },
    /// 500: our fault; the caller learns the request's id only.
    #[error("something went wrong on our side; tell us the requestId")]
    Internal(#[source] Arc<dyn Error + Send + Sync>),
}

impl ApiError {
    /// A part of the request is wrong.
    pub fn invalid(field: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            reason: reason.into(),
        }
    }

    /// Something went wrong that the caller cannot mend.
    pub fn internal(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Internal(Arc::from(error.into()))
    }

    /// The word for programs; it never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::Invalid { .. } => "invalid",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooSlow(_) => "too_slow",
            Self::TooLarge(_) => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::StaleCursor => "stale_cursor",
            Self::TooBroad => "too_broad",
            Self::RateLimited { .. } => "rate_limited",
            Self::Overloaded { .. } => "overloaded",
            Self::Unavailable { .. } => "unavailable",
            Self::Internal(_) => "internal",
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Invalid { .. } | Self::StaleCursor => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooBroad => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited { .. } | Self::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The body of the answer.
    pub(crate) fn body(&self, request_id: &str) -> Vec<u8> {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Inner<'a> {
            code: &'a str,
            message: String,
            request_id: &'a str,
        }
        let error = Inner {
            code: self.code(),
            message: self.to_string(),
            request_id,
        };
        serde_json::to_vec(&Envelope { error }).unwrap_or_default()
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match self {
            Self::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::TooSlow(_) => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::RateLimited { retry_after, .. }
            | Self::Overloaded { retry_after }
            | Self::Unavailable { retry_after, .. } => {
                headers.insert(RETRY_AFTER, whole_seconds(*retry_after).into());
            }
            _ => {}
        }
        headers
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.headers()).into_response();
        response.extensions_mut().insert(self);
        response
    }
}
