//! Which files are taken, which clients, and what happens when files change.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::TlsConnector;

use super::*;

/// An authority, and the files of a listener whose certificate is of it.
pub(crate) struct Stand {
    folder: tempfile::TempDir,
    authority: Issuer<'static, KeyPair>,
    ca: CertificateDer<'static>,
    pub(crate) tls: Tls,
}

impl Stand {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(["an authority".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap();
        fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        let stand = Self {
            tls: Tls {
                certificate: folder.path().join("certificate.pem"),
                key: folder.path().join("key.pem"),
                client_ca: PathBuf::new(),
                handshake_timeout: Duration::from_secs(60),
            },
            authority: Issuer::new(params, key),
            ca: ca.der().clone(),
            folder,
        };
        stand.keep(stand.pair());
        stand
    }

    /// Makes them those of the listener.
    pub(crate) fn keep(&self, (certificate, key): (String, String)) {
        fs::write(&self.tls.certificate, certificate).unwrap();
        fs::write(&self.tls.key, key).unwrap();
    }

    /// The file of the authority.
    pub(crate) fn authorities(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate and its key.
    fn pair(&self) -> (String, String) {
        self.pair_with(|_| {})
    }

    /// Such a certificate with something else in it.
    pub(crate) fn pair_with(
        &self,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn open(&self) -> Result<Certificate, TlsError> {
        Certificate::open("test", &self.tls).map(Option::unwrap)
    }

    fn refusal(&self) -> String {
        with_causes(&self.open().err().unwrap())
    }

    /// A client that trusts the authority, and has this certificate if any.
    fn client(&self, own: Option<(String, String)>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS12, &TLS13])
            .unwrap()
            .with_root_certificates(roots);
        match own {
            None => client.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                client.with_client_auth_cert(vec![chain], key).unwrap()
            }
        }
    }
}

/// What the listener showed to a client that got in and was answered one byte.
async fn shown(certificate: &Certificate, client: ClientConfig) -> Option<Vec<u8>> {
    let (here, there) = duplex(65_536);
    let serving = async {
        if let Some(mut stream) = certificate.accept(there).await {
            stream.write_all(b"x").await.ok();
            stream.shutdown().await.ok();
        }
    };
    let asking = async {
        let name = ServerName::try_from("localhost").unwrap();
        let connected = TlsConnector::from(Arc::new(client)).connect(name, here);
        let mut stream = connected.await.ok()?;
        // In TLS 1.3 a client learns of its refusal by what it reads.
        stream.read_u8().await.ok()?;
        let (_, session) = stream.get_ref();
        Some(session.peer_certificates()?.first()?.to_vec())
    };
    tokio::join!(serving, asking).1
}

fn first_of(pem: &str) -> Vec<u8> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    certificate.to_vec()
}

#[tokio::test]
async fn a_changed_certificate_is_shown_once_its_key_has_come_as_well() {
    let stand = Stand::new();
    let certificate = stand.open().unwrap();
    let old = fs::read_to_string(&stand.tls.certificate).unwrap();
    let seen = || shown(&certificate, stand.client(None));
    assert_eq!(seen().await, Some(first_of(&old)));
    assert!(!certificate.refresh().unwrap());

    let (new, key) = stand.pair();
    fs::write(&stand.tls.certificate, &new).unwrap();
    let refusal = certificate.refresh().unwrap_err().to_string();
    assert!(refusal.contains("certificate.pem") && refusal.contains("key.pem"));
    assert!(!certificate.refresh().unwrap(), "it is said once");
    assert_eq!(seen().await, Some(first_of(&old)));

    fs::write(&stand.tls.key, key).unwrap();
    assert!(certificate.refresh().unwrap());
    assert_eq!(seen().await, Some(first_of(&new)));

    fs::remove_file(&stand.tls.key).unwrap();
    assert!(certificate.refresh().is_err());
    assert_eq!(seen().await, Some(first_of(&new)));
}

#[test]
fn a_certificate_that_is_no_good_is_told_as_a_metric_for_as_long_as_it_is() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let told = recorder.handle();
    let metric = r#"audit_tls_certificate_stale{listener="test"}"#;
    let stale = |value: u8| told.render().contains(&format!("{metric} {value}"));
    ::metrics::with_local_recorder(&recorder, || {
        let stand = Stand::new();
        let certificate = stand.open().unwrap();
        assert!(stale(0));
        let (_, other_key) = stand.pair();
        fs::write(&stand.tls.key, other_key).unwrap();
        assert!(certificate.refresh().is_err() && stale(1));
        assert!(!certificate.refresh().unwrap() && stale(1));
        stand.keep(stand.pair());
        assert!(certificate.refresh().unwrap() && stale(0));
    });
}

#[test]
fn files_that_are_no_good_end_a_start_and_are_named() {
    let stand = Stand::new();
    let (_, other_key) = stand.pair();
    let key = fs::read_to_string(&stand.tls.key).unwrap();
    fs::write(&stand.tls.key, other_key).unwrap();
    let refusal = stand.refusal();
    assert!(
        refusal.contains("key.pem") && refusal.contains("certificate.pem"),
        "{refusal}"
    );

    fs::write(&stand.tls.key, "secret").unwrap();
    let refusal = stand.refusal();
    assert!(refusal.contains("key.pem has no private key"), "{refusal}");
    assert!(!refusal.contains("secret"), "{refusal}");

    fs::remove_file(&stand.tls.key).unwrap();
    let refusal = stand.refusal();
    assert!(
        refusal.contains("key.pem") && refusal.contains("No such file"),
        "{refusal}"
    );

    fs::write(&stand.tls.certificate, key).unwrap();
    let refusal = stand.refusal();
    assert!(
        refusal.contains("certificate.pem has no certificate"),
        "{refusal}"
    );
}

#[tokio::test]
async fn with_authorities_of_clients_only_their_clients_get_in() {
    let mut stand = Stand::new();
    stand.tls.client_ca = stand.authorities();
    let certificate = stand.open().unwrap();
    let (known, unknown) = (stand.pair(), Stand::new().pair());
    assert!(
        shown(&certificate, stand.client(Some(known)))
            .await
            .is_some()
    );
    assert!(
        shown(&certificate, stand.client(Some(unknown)))
            .await
            .is_none()
    );
    assert!(shown(&certificate, stand.client(None)).await.is_none());

    fs::write(&stand.tls.client_ca, "").unwrap();
    assert!(certificate.refresh().is_err(), "nobody would be checked");
    assert!(shown(&certificate, stand.client(None)).await.is_none());
}

/// How a client begins that knows TLS up to `1.minor`, and is otherwise one we take.
fn hello(minor: u8) -> Vec<u8> {
    let suites = [0, 2, 0xc0, 0x2b];
    let extensions = [
        &[0, 22][..],
        &[0, 13, 0, 4, 0, 2, 4, 3],
        &[0, 10, 0, 4, 0, 2, 0, 0x1d],
        &[0, 11, 0, 2, 1, 0],
    ]
    .concat();
    let version = [3, minor + 1];
    let hello = [&version[..], &[7; 32], &[0], &suites, &[1, 0], &extensions].concat();
    let len = u8::try_from(hello.len()).unwrap();
    [&[0x16, 3, 1, 0, len + 4, 1, 0, 0, len], hello.as_slice()].concat()
}

#[tokio::test]
async fn a_client_of_nothing_above_tls_1_1_is_refused() {
    const ALERT_PROTOCOL_VERSION: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 70];
    let certificate = Stand::new().open().unwrap();
    for (minor, refused) in [(0, true), (1, true), (2, false)] {
        let (mut here, there) = duplex(65_536);
        let asking = async {
            here.write_all(&hello(minor)).await.unwrap();
            let mut answer = [0; 7];
            here.read_exact(&mut answer).await.unwrap();
            drop(here);
            answer
        };
        let (_, answer) = tokio::join!(certificate.accept(there), asking);
        assert_eq!(
            answer == ALERT_PROTOCOL_VERSION,
            refused,
            "{minor}: {answer:?}"
        );
        assert_eq!(answer[0] == 0x16, !refused, "{minor}: {answer:?}");
    }
}

#[test]
fn half_a_configuration_is_refused() {
    let stand = Stand::new();
    assert_eq!(stand.tls.complaints("http.tls"), [""; 0]);
    let complaints = Tls {
        key: PathBuf::new(),
        ..stand.tls.clone()
    }
    .complaints("http.tls");
    assert!(
        complaints.concat().contains("http.tls.key"),
        "{complaints:?}"
    );
    let complaints = Tls {
        client_ca: "ca.pem".into(),
        certificate: PathBuf::new(),
        key: PathBuf::new(),
        ..stand.tls
    }
    .complaints("admin.tls");
    assert!(
        complaints.concat().contains("admin.tls.client_ca"),
        "{complaints:?}"
    );
}
