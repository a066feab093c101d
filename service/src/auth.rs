//! Who may call: extractors that a handler names to require a scope.
//!
//! The key comes as `x-api-key: <key>` or `Authorization: Bearer <key>`. A handler with none of
//! these extractors is open to everybody.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use crate::ApiError;
use crate::keys::{ApiKeys, Identity, Scope};

/// The caller's key has the scope `write`.
#[derive(Debug, Clone)]
pub struct CanWrite(pub Identity);

/// The caller's key has the scope `read`.
#[derive(Debug, Clone)]
pub struct CanRead(pub Identity);

/// The caller's key has the scope `admin`.
#[derive(Debug, Clone)]
pub struct CanAdmin(pub Identity);

macro_rules! requires {
    ($($extractor:ident: $scope:ident),*) => {$(
        impl<S: Send + Sync> FromRequestParts<S> for $extractor
        where
            ApiKeys: FromRef<S>,
        {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
                caller(&parts.headers, &ApiKeys::from_ref(state), Scope::$scope).map(Self)
            }
        }
    )*};
}

requires!(CanWrite: Write, CanRead: Read, CanAdmin: Admin);

fn caller(headers: &HeaderMap, keys: &ApiKeys, needed: Scope) -> Result<Identity, ApiError> {
    let identity = presented(headers)
        .and_then(|key| keys.authenticate(key))
        .ok_or(ApiError::Unauthorized)?;
    if !identity.scopes.contains(&needed) {
        return Err(ApiError::Forbidden(needed));
    }
    Ok(identity)
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
            let identity = caller(&headers, &keys(), Scope::Read).unwrap();
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
            let refused = caller(&headers, &keys(), Scope::Read);
            assert!(
                matches!(refused, Err(ApiError::Unauthorized)),
                "{headers:?}"
            );
        }
    }

    #[test]
    fn a_key_without_the_scope_is_forbidden() {
        let refused = caller(&with("x-api-key", KEY), &keys(), Scope::Write);
        assert!(matches!(refused, Err(ApiError::Forbidden(Scope::Write))));
    }
}
