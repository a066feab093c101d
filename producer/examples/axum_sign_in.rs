//! An axum server that audits every sign-in and delays none.
//!
//!     cargo run -p audit-producer --example axum_sign_in -- 127.0.0.1:9092
//!     curl -i -X POST http://127.0.0.1:3000/sign-in/ann
//!     curl -i -X DELETE http://127.0.0.1:3000/users/ann
//!
//! A tower layer publishes what every answer was and goes on. The handler that deletes a user
//! waits for its receipt instead: what is not on record does not happen.

use std::time::Duration;

use audit_producer::{Durability, DurabilityConfig, Producer, ProducerConfig, SpoolConfig};
use audit_schema::{Event, EventType, InvalidEvent, Outcome, ProjectId};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, post};

#[derive(Clone)]
struct Audit {
    producer: Producer,
    project: ProjectId,
}

impl Audit {
    fn event(
        &self,
        what: EventType<'static>,
        user: &str,
        ok: bool,
    ) -> Result<Event<'static>, InvalidEvent> {
        Event::builder(self.project.clone(), what)
            .event_key(user.to_owned())
            .user_id(user.to_owned())
            .outcome(if ok {
                Outcome::Success
            } else {
                Outcome::Failure
            })
            .build()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let brokers = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let mut durability = DurabilityConfig::default();
    let types = &mut durability.types;
    types.insert("user_deleted".to_owned(), Durability::Require);
    let producer = Producer::new(&ProducerConfig {
        brokers,
        spool: Some(SpoolConfig::at("audit-spool")),
        durability,
        ..ProducerConfig::default()
    })?;
    let audit = Audit {
        producer: producer.clone(),
        project: "demo".parse()?,
    };

    let app = Router::new()
        .route("/sign-in/{user}", post(sign_in))
        .route_layer(from_fn_with_state(audit.clone(), audited))
        .route("/users/{user}", delete(delete_user))
        .with_state(audit);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on {}", listener.local_addr()?);
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, app)
        .with_graceful_shutdown(stop)
        .await?;
    let left = producer.close(Duration::from_secs(5)).await;
    println!(
        "{} events wait in the spool for the next start",
        left.spooled
    );
    Ok(())
}

/// Your sign-in. It knows nothing of the audit log.
async fn sign_in(Path(user): Path<String>) -> StatusCode {
    if user == "mallory" {
        StatusCode::UNAUTHORIZED
    } else {
        StatusCode::OK
    }
}

/// Publishes how a sign-in ended. It takes microseconds, and the receipt is dropped.
async fn audited(
    State(audit): State<Audit>,
    Path(user): Path<String>,
    request: Request,
    next: Next,
) -> Response {
    let answer = next.run(request).await;
    let (what, ok) = if answer.status().is_success() {
        (EventType::USER_SIGNED_IN, true)
    } else {
        (EventType::USER_SIGN_IN_FAILED, false)
    };
    match audit.event(what, &user, ok) {
        Ok(event) => drop(audit.producer.publish(&event)),
        Err(error) => eprintln!("not audited: {error}"),
    }
    answer
}

/// Audit or refuse: the user is deleted only once that is on record.
async fn delete_user(State(audit): State<Audit>, Path(user): Path<String>) -> StatusCode {
    let Ok(event) = audit.event(EventType::USER_DELETED, &user, true) else {
        return StatusCode::BAD_REQUEST;
    };
    match audit.producer.publish(&event).await {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(refused) => {
            eprintln!("not deleted: {refused}");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}
