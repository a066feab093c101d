//! Who calls: one layer that routes are given to require a key with a scope.
//!
//! The key comes as `x-api-key: <key>` or `Authorization: Bearer <key>`. Routes that were not
//! given to [`require`] are open to everybody. Those that were know the caller: a handler extracts
//! [`Identity`] as an `Extension`, and what is logged of the request names project and key.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tracing::Span;

use crate::ApiError;
use crate::keys::{ApiKeys, Identity, Scope};
use crate::rate_limit::RateLimiter;
use crate::traces;

/// Requires a key with `scope` on every route of `router` so far, and holds each key to `limit`.
///
/// This comes before anything of the request but its head is read. A path that is none of these
/// routes needs no key: it is answered with 404. The router must have routes; axum panics
/// otherwise.
pub fn require<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    keys: ApiKeys,
    scope: Scope,
    limit: Option<RateLimiter>,
) -> Router<S> {
    let gate = Gate { keys, scope, limit };
    router.route_layer(from_fn_with_state(gate, pass))
}

/// What routes require.
#[derive(Debug, Clone)]
struct Gate {
    keys: ApiKeys,
    scope: Scope,
    limit: Option<RateLimiter>,
}

async fn pass(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let identity = match caller(request.headers(), &gate.keys) {
        Ok(identity) => identity,
        Err(refused) => return refused.into_response(),
    };
    // The span is that of `http::finish`, so that the caller is also known of a request that is
    // refused here, takes too long or panics.
    Span::current()
        .record("project", identity.project.as_str())
        .record("key", identity.key_name.as_str());
    traces::say("audit.project", identity.project.to_string());
    if !identity.scopes.contains(&gate.scope) {
        return ApiError::Forbidden(gate.scope).into_response();
    }
    let Some(limit) = gate.limit else {
        request.extensions_mut().insert(identity);
        return next.run(request).await;
    };
    let (counted, headers) = limit.count(&identity);
    let mut response = match counted {
        Ok(()) => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    };
    response.headers_mut().extend(headers);
    response
}

fn caller(headers: &HeaderMap, keys: &ApiKeys) -> Result<Identity, ApiError> {
    let identity = presented(headers).and_then(|key| keys.authenticate(key));
    identity.ok_or(ApiError::Unauthorized)
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    if let Some(key) = headers.get("x-api-key") {
        return key.to_str().ok();
    }
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{NewKey, add_key};

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn keys() -> ApiKeys {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let new = NewKey {
            name: "reader",
            scopes: &[Scope::Read],
            organization: None,
            key: KEY,
        };
        add_key(&path, &"acme".parse().unwrap(), new).unwrap();
        ApiKeys::open(&path).unwrap()
    }

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn a_key_is_taken_from_either_header() {
        for headers in [
            with("x-api-key", KEY),
            with("authorization", &format!("Bearer {KEY}")),
            with("authorization", &format!("bearer  {KEY}")),
        ] {
            let identity = caller(&headers, &keys()).unwrap();
            assert_eq!(identity.project.as_str(), "acme");
        }
    }

    #[test]
    fn a_request_without_a_known_key_is_unauthorized() {
        for headers in [
            HeaderMap::new(),
            with("x-api-key", "wrong"),
            with("authorization", KEY),
            with("authorization", &format!("Basic {KEY}")),
        ] {
            let refused = caller(&headers, &keys());
            assert!(
                matches!(refused, Err(ApiError::Unauthorized)),
                "{headers:?}"
            );
        }
    }
}
