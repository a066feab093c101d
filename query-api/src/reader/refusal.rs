//! What a failed query means for the caller.

use std::time::Duration;

use super::{ApiError, Error, metrics};

/// Whether it is the caller's question, a ClickHouse that is away, or our fault.
pub(super) fn refusal(error: Error) -> ApiError {
    if is_over_limits(&error) {
        metrics::refused("too_broad");
        return ApiError::TooBroad;
    }
    let away = match exception_code(&error) {
        // Too many queries, an unreachable shard, shutting down, no keeper.
        Some(code) => matches!(code, 202 | 209 | 210 | 236 | 279 | 999),
        // Nobody there, or somebody else.
        None => matches!(
            error,
            Error::Network(_) | Error::TimedOut | Error::BadResponse(_)
        ),
    };
    if away {
        return unavailable(&error);
    }
    ApiError::internal(error)
}

/// Whether it is about too much time (two ways), memory, rows or bytes.
pub(super) fn is_over_limits(error: &Error) -> bool {
    matches!(
        exception_code(error),
        Some(158 | 159 | 160 | 241 | 307 | 396)
    )
}

fn unavailable(error: &Error) -> ApiError {
    metrics::refused("unavailable");
    tracing::warn!(%error, "clickhouse did not answer a query");
    ApiError::Unavailable {
        reason: "the events cannot be read at the moment",
        retry_after: Duration::from_secs(1),
    }
}

/// The number in `Code: 159. DB::Exception: …`.
fn exception_code(error: &Error) -> Option<u32> {
    let Error::BadResponse(text) = error else {
        return None;
    };
    let (_, rest) = text.split_once("Code: ")?;
    let (code, _) = rest.split_once('.')?;
    code.parse().ok()
}
