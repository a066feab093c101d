//! Who asks: what the key reaches, and what is said of the caller where reads are recorded.

use audit_service::ApiError;
use audit_service::http::RequestId;
use audit_service::keys::Identity;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::filter::Reach;

/// The caller of a route that requires a key.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) reach: Reach,
    /// The name of the key in its project.
    pub(crate) key_name: String,
    pub(crate) request_id: String,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let identity = parts.extensions.get::<Identity>();
        let identity = identity.ok_or_else(|| ApiError::internal("the route requires no key"))?;
        let id = parts.extensions.get::<RequestId>();
        Ok(Self {
            reach: Reach {
                project: identity.project.clone(),
                organization: identity.organization.clone(),
            },
            key_name: identity.key_name.clone(),
            request_id: id.map_or_else(String::new, |id| id.as_str().to_owned()),
        })
    }
}
