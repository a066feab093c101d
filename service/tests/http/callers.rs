//! What a caller sees of its key's scope and limit, and what a browser lets a page see.

use std::time::Duration;

use audit_service::auth;
use audit_service::http::{self, Http};
use audit_service::keys::{ApiKeys, Identity, Scope};
use audit_service::rate_limit::{RateLimit, RateLimiter};
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde_json::Value;
use tower::ServiceExt;

use crate::stand::{readers, settings};

const READER: &str = "reader-0123456789abcdef0123456789abcdef";
const CUSTOMER: &str = "customer-0123456789abcdef0123456789abcdef";

/// The origin whose pages may call.
const OURS: &str = "https://app.example.com";

/// What a key may ask in a minute.
const REQUESTS: u32 = 2;

fn keys() -> ApiKeys {
    readers(&[("reader", None, READER), ("customer", Some("o1"), CUSTOMER)])
}

/// Routes of which those that read are limited and those that write are not.
fn app() -> Router {
    let limiter = RateLimiter::new(RateLimit {
        requests: REQUESTS,
        per: Duration::from_secs(60),
    });
    let who = get(async |Extension(caller): Extension<Identity>| {
        let organization = caller.organization.as_deref().unwrap_or("all");
        format!("{}: {organization}", caller.key_name)
    });
    let reads = Router::new()
        .route("/who", who)
        .route("/broken", get(async || StatusCode::BAD_REQUEST));
    let writes = Router::new().route("/write", post(async |_: String| ()));
    let routes = auth::require(reads, keys(), Scope::Read, Some(limiter))
        .merge(auth::require(writes, keys(), Scope::Write, None))
        .route("/open", get(async || "open"));
    http::finish(routes, &limits())
}

fn limits() -> Http {
    Http {
        cors_origins: vec![OURS.to_owned()],
        ..settings()
    }
}

async fn send(app: &Router, request: Request<Body>) -> (StatusCode, HeaderMap, Value) {
    let answer = app.clone().oneshot(request).await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = to_bytes(answer.into_body(), 65_536).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, headers, body)
}

async fn ask(app: &Router, path: &str, key: &str) -> (StatusCode, HeaderMap, Value) {
    let request = Request::get(path).header("x-api-key", key);
    send(app, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_handler_learns_which_organization_the_key_is_restricted_to() {
    let app = app();
    assert_eq!(ask(&app, "/who", READER).await.2, "reader: all");
    assert_eq!(ask(&app, "/who", CUSTOMER).await.2, "customer: o1");
}

#[tokio::test]
async fn only_the_routes_that_require_a_key_need_one() {
    let app = app();
    for (path, status) in [("/open", 200), ("/nothing", 404), ("/who", 401)] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let (answered, headers, _) = send(&app, request).await;
        assert_eq!(answered.as_u16(), status, "{path}");
        assert!(!headers.contains_key("ratelimit"), "{path}");
    }
}

#[tokio::test]
async fn a_caller_without_the_scope_is_refused_before_its_body_is_read() {
    let never = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let request = Request::post("/write").header("x-api-key", READER);
    let request = request.body(Body::from_stream(never)).unwrap();
    assert_eq!(send(&app(), request).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn every_answer_says_what_is_left_to_the_key() {
    let app = app();
    for (path, status, left) in [("/who", 200, "1;t=30"), ("/broken", 400, "0;t=60")] {
        let (answered, headers, _) = ask(&app, path, READER).await;
        assert_eq!(answered.as_u16(), status);
        assert_eq!(headers["ratelimit-policy"], "\"key\";q=2;w=60");
        assert_eq!(headers["ratelimit"], format!("\"key\";r={left}"));
        assert!(!headers.contains_key("retry-after"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_over_its_limit_is_told_when_to_come_back_and_another_key_is_answered() {
    let app = app();
    for _ in 0..REQUESTS {
        assert_eq!(ask(&app, "/who", READER).await.0, StatusCode::OK);
    }
    let (status, headers, body) = ask(&app, "/who", READER).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(body["error"]["code"], "rate_limited");
    assert_eq!(
        body["error"]["message"],
        "this key may make 2 requests per 60 s and has made them; try again in 30 s"
    );
    assert_eq!(headers["retry-after"], "30");
    assert_eq!(headers["ratelimit-policy"], "\"key\";q=2;w=60");
    assert_eq!(headers["ratelimit"], "\"key\";r=0;t=60");
    assert_eq!(ask(&app, "/who", CUSTOMER).await.0, StatusCode::OK);

    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(ask(&app, "/who", READER).await.0, StatusCode::OK);
}

async fn preflight(app: &Router, origin: &str) -> (StatusCode, HeaderMap) {
    let request = Request::options("/who")
        .header("origin", origin)
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "x-api-key");
    let (status, headers, _) = send(app, request.body(Body::empty()).unwrap()).await;
    (status, headers)
}

#[tokio::test]
async fn a_browser_that_asks_for_a_page_of_ours_needs_no_key() {
    let (status, headers) = preflight(&app(), OURS).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["access-control-allow-origin"], OURS);
    assert_eq!(headers["access-control-allow-methods"], "GET,POST");
    assert_eq!(
        headers["access-control-allow-headers"],
        "x-api-key,authorization,content-type,x-request-id,last-event-id,if-none-match"
    );
    assert_eq!(headers["access-control-max-age"], "3600");
    assert_eq!(headers["vary"], "origin");
    assert!(!headers.contains_key("access-control-allow-credentials"));
}

#[tokio::test]
async fn a_page_of_another_origin_is_allowed_nothing() {
    let app = app();
    for origin in [
        "https://evil.example.com",
        "https://app.example.com.evil.com",
        "null",
    ] {
        let (_, headers) = preflight(&app, origin).await;
        assert!(!headers.contains_key("access-control-allow-origin"));
        let request = Request::get("/open").header("origin", origin);
        let (_, headers, _) = send(&app, request.body(Body::empty()).unwrap()).await;
        assert!(!headers.contains_key("access-control-allow-origin"));
        assert_eq!(headers["vary"], "origin");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_of_ours_may_read_every_refusal() {
    let app = app();
    for (path, key, status) in [
        ("/who", "wrong", 401),
        ("/nothing", "wrong", 404),
        ("/who", READER, 200),
        ("/broken", READER, 400),
        ("/who", READER, 429),
    ] {
        let request = Request::get(path)
            .header("origin", OURS)
            .header("x-api-key", key);
        let (answered, headers, _) = send(&app, request.body(Body::empty()).unwrap()).await;
        assert_eq!(answered.as_u16(), status, "{path}");
        assert_eq!(headers["access-control-allow-origin"], OURS, "{path}");
        assert_eq!(
            headers["access-control-expose-headers"],
            "x-request-id,retry-after,ratelimit,ratelimit-policy,etag,audit-as-of"
        );
        assert_eq!(headers["vary"], "origin");
    }
}

#[tokio::test]
async fn without_origins_nothing_is_said_about_them() {
    let closed = Http {
        cors_origins: Vec::new(),
        ..limits()
    };
    let app = http::finish(Router::new().route("/open", get(async || ())), &closed);
    let request = Request::get("/open").header("origin", OURS);
    let (_, headers, _) = send(&app, request.body(Body::empty()).unwrap()).await;
    assert!(!headers.contains_key("vary") && !headers.contains_key("access-control-allow-origin"));
    let (status, _) = preflight(&app, OURS).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
