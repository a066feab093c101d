//! The section `[http]` of a service's configuration.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::connections::Connections;
use super::cors;
use crate::config::Validate;
use crate::tls::{Certificate, Tls, TlsError};

/// Where an API listens, and what one request may cost.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address and port.
    pub listen: SocketAddr,
    /// Its TLS.
    pub tls: Tls,
    /// Most connections; further ones wait until one ends.
    pub max_connections: usize,
    /// Most requests that are answered at once; further ones are refused with 429.
    pub max_requests: usize,
    /// Largest body, in bytes.
    pub max_body_bytes: usize,
    /// Most bytes of all bodies that are read and handled at once; what is more is refused with
    /// 429.
    pub max_bodies_bytes: usize,
    /// How long a body may take to come, from the end of its head.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// How long a request may take, from its head to the head of its answer.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How long a client may read nothing of an answer before it is cut off.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// How long new requests are answered after the service was asked to stop.
    #[serde(with = "humantime_serde")]
    pub stay_open: Duration,
    /// The origins whose pages may call with a key, such as `https://app.example.com`. In the
    /// environment they are separated by commas.
    #[serde(deserialize_with = "cors::origins")]
    pub cors_origins: Vec<String>,
    /// Whether every answer is logged at the level info; otherwise it is at debug.
    pub access_log: bool,
}

impl Http {
    /// What [`serve`](super::serve) has to know of it, with the certificate that it reads.
    pub fn connections(&self) -> Result<Connections, TlsError> {
        Ok(Connections {
            max: self.max_connections,
            write_timeout: self.write_timeout,
            stay_open: self.stay_open,
            closing: CancellationToken::new(),
            certificate: Certificate::open("http", &self.tls)?,
        })
    }
}

impl Validate for Http {
    fn complaints(&self) -> Vec<String> {
        let mut complaints = self.tls.complaints("http.tls");
        for (name, value) in [
            ("max_connections", self.max_connections),
            ("max_requests", self.max_requests),
            ("max_body_bytes", self.max_body_bytes),
        ] {
            if value == 0 {
                complaints.push(format!("http.{name} must be at least 1"));
            }
        }
        if self.max_bodies_bytes < self.max_body_bytes {
            let least = "http.max_bodies_bytes must be at least http.max_body_bytes";
            complaints.push(least.to_owned());
        }
        if self.body_timeout.is_zero() || self.body_timeout > self.request_timeout {
            let range = "http.body_timeout must be above 0 and at most http.request_timeout";
            complaints.push(range.to_owned());
        }
        if self.request_timeout.is_zero() {
            complaints.push("http.request_timeout must not be 0".to_owned());
        }
        if self.write_timeout.is_zero() {
            complaints.push("http.write_timeout must not be 0".to_owned());
        }
        complaints.extend(cors::complaints(&self.cors_origins));
        complaints
    }
}
