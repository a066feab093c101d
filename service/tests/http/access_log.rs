//! What is logged of a request, and what never is.

use std::io::Write;
use std::sync::{Arc, Mutex};

use audit_service::auth;
use audit_service::http::{self, Http};
use audit_service::keys::Scope;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use serde_json::Value;
use tower::ServiceExt;
use tracing_subscriber::fmt::MakeWriter;

use crate::stand::{KEY, readers, settings};

/// The lines that were logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn app(access_log: bool) -> Router {
    let keys = readers(&[("the reader", None, KEY)]);
    let routes = Router::new()
        .route("/users/{id}", get(async || ()))
        .route("/hang/{id}", get(std::future::pending::<()>));
    let routes = auth::require(routes, keys, Scope::Read, None);
    let settings = Http {
        access_log,
        ..settings()
    };
    http::finish(routes, &settings)
}

/// Asks for `path`, with `key`, and gives what was logged at info.
async fn logged(app: Router, path: &str, key: &str) -> String {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(tracing::Level::INFO)
        .with_writer(lines.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let request = Request::get(path)
        .header("x-api-key", key)
        .header("x-request-id", "req-1")
        .header("x-forwarded-for", "192.0.2.1");
    let answer = app.oneshot(request.body(Body::empty()).unwrap()).await;
    drop(answer.unwrap());
    lines.text()
}

#[tokio::test(start_paused = true)]
async fn a_request_is_one_line_that_says_who_asked_for_what_kind_of_thing() {
    for (path, route, key, status, known) in [
        ("/users/ann?email=a@x", "/users/{id}", KEY, 200, true),
        ("/hang/ann?email=a@x", "/hang/{id}", KEY, 503, true),
        ("/users/ann?email=a@x", "/users/{id}", "wrong", 401, false),
        ("/nothing/ann?email=a@x", "unmatched", KEY, 404, false),
    ] {
        let text = logged(app(true), path, key).await;
        let line: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        assert_eq!(line["message"], "answered", "{text}");
        assert_eq!(line["level"], "INFO", "{text}");
        assert_eq!(line["status"], status, "{text}");
        assert!(line["duration_ms"].is_u64(), "{text}");
        let span = &line["span"];
        assert_eq!(span["request.id"], "req-1", "{text}");
        assert_eq!(span["method"], "GET", "{text}");
        assert_eq!(span["route"], route, "{text}");
        let caller = (span["project"].as_str(), span["key"].as_str());
        let expected = known.then_some(("acme", "the reader")).unzip();
        assert_eq!(caller, expected, "{text}");
        for personal in ["ann", "email", "192.0.2.1", KEY] {
            assert!(!text.contains(personal), "{personal} in {text}");
        }
    }
}

#[tokio::test]
async fn without_the_access_log_nothing_is_said_at_info() {
    assert_eq!(logged(app(false), "/users/ann", KEY).await, "");
}
