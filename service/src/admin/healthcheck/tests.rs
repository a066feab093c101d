//! Real ports on this machine, with and without TLS.

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::admin::{MAX_CONNECTIONS, Readiness, WRITE_TIMEOUT, router};
use crate::http::{self, Connections};
use crate::telemetry::with_causes;
use crate::tls::tests::Stand;
use crate::tls::{Certificate, Tls};

/// The admin port of a service that starts, at every address of this machine.
struct Port {
    admin: Admin,
    readiness: Readiness,
}

impl Port {
    async fn open(tls: Tls) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let admin = Admin {
            listen: listener.local_addr().unwrap(),
            tls,
        };
        let shutdown = CancellationToken::new();
        let readiness = Readiness::new(shutdown.clone());
        let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let routes = router(metrics.handle(), readiness.clone());
        let connections = Connections {
            max: MAX_CONNECTIONS,
            write_timeout: WRITE_TIMEOUT,
            stay_open: Duration::ZERO,
            closing: CancellationToken::new(),
            certificate: Certificate::open("admin", &admin.tls).unwrap(),
        };
        let serving = http::serve(listener, routes, connections, shutdown);
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        drop(tokio::spawn(serving));
        Self { admin, readiness }
    }

    async fn ready(tls: Tls) -> Self {
        let port = Self::open(tls).await;
        port.readiness.set_ready();
        port
    }

    async fn check(&self) -> Result<(), String> {
        let checked = healthcheck(&self.admin).await;
        checked.map_err(|error| with_causes(&error))
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}/readyz", self.admin.listen.port())
    }
}

#[tokio::test]
async fn a_healthcheck_says_what_readyz_says() {
    let secured = Stand::new();
    for (scheme, tls) in [("http", Tls::default()), ("https", secured.tls.clone())] {
        let port = Port::open(tls).await;
        let starting = format!("{} says: starting", port.url(scheme));
        assert_eq!(port.check().await, Err(starting));
        port.readiness.set_ready();
        assert_eq!(port.check().await, Ok(()));
    }
}

#[tokio::test]
async fn a_healthcheck_of_nobody_or_of_somebody_without_tls_has_no_answer() {
    let secured = Stand::new();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    let plain = Port::ready(Tls::default()).await.admin.listen;
    for listen in [nobody, plain] {
        let tls = secured.tls.clone();
        let error = healthcheck(&Admin { listen, tls }).await.unwrap_err();
        let port = listen.port();
        let begin = format!("https://127.0.0.1:{port}/readyz does not answer: ");
        assert!(error.to_string().starts_with(&begin), "{error}");
    }
}

#[tokio::test]
async fn a_healthcheck_takes_the_certificate_of_the_file_whatever_is_in_it_and_no_other() {
    let secured = Stand::new();
    secured.keep(secured.pair_with(|params| params.not_after = date_time_ymd(2020, 1, 1)));
    let mut port = Port::ready(secured.tls.clone()).await;
    assert_eq!(port.check().await, Ok(()));

    // Of the same authority, for the same name, and valid.
    let (other, _) = secured.pair_with(|_| {});
    let file = secured.tls.certificate.with_file_name("other.pem");
    std::fs::write(&file, other).unwrap();
    port.admin.tls.certificate = file;
    let refusal = port.check().await.unwrap_err();
    let begin = format!("{} does not show the certificate", port.url("https"));
    assert!(refusal.starts_with(&begin), "{refusal}");
}

#[tokio::test]
async fn where_clients_need_a_certificate_a_healthcheck_shows_the_services_own() {
    let mut secured = Stand::new();
    secured.tls.client_ca = secured.authorities();
    let port = Port::ready(secured.tls.clone()).await;
    assert_eq!(port.check().await, Ok(()));

    let only_serves = [ExtendedKeyUsagePurpose::ServerAuth];
    secured.keep(secured.pair_with(|params| params.extended_key_usages = only_serves.to_vec()));
    let port = Port::ready(secured.tls.clone()).await;
    let refusal = port.check().await.unwrap_err();
    assert!(refusal.contains("certificate.pem, which is what a healthcheck shows"));

    let other = Stand::new();
    secured.tls.client_ca = other.authorities();
    let port = Port::ready(secured.tls.clone()).await;
    let refusal = port.check().await.unwrap_err();
    assert!(refusal.contains("ca.pem admit no client"), "{refusal}");
}
