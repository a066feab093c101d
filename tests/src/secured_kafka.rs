//! A broker with a second listener that asks for TLS and a login.

use std::path::PathBuf;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::server::{Server, free_port};
use crate::world::World;

/// A login with all rights.
pub const WRITER: (&str, &str) = ("writer", "writer-secret");

/// A login with no rights.
pub const STRANGER: (&str, &str) = ("stranger", "stranger-secret");

/// A broker, and how its secured listener is reached.
pub struct SecuredKafka {
    /// The broker; its plain listener is the one that others use.
    pub server: Server,
    /// The secured listener.
    pub brokers: String,
    /// The certificate of the authority that the broker's is from.
    pub ca: PathBuf,
    /// The certificate of another one.
    pub other_ca: PathBuf,
}

impl SecuredKafka {
    /// Starts it.
    pub async fn start(world: &World) -> anyhow::Result<Self> {
        let (ca, issuer) = authority("audit test")?;
        let (other_ca, _) = authority("another")?;
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        let file = |name: &str, text: String| {
            let path = world.logs().join(name);
            std::fs::write(&path, text)?;
            anyhow::Ok(path)
        };
        let identity = file("broker.pem", key.serialize_pem() + &certificate.pem())?;
        let port = free_port()?;
        let mut server = Server::kafka(world.logs())?;
        let login = |(user, password): (&str, &str)| format!(" user_{user}=\"{password}\"");
        let properties = [
            format!("listeners=PLAINTEXT://127.0.0.1:{{port}},CONTROLLER://{{controller}},SECURED://127.0.0.1:{port}"),
            format!("advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},SECURED://localhost:{port}"),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL".to_owned(),
            "listener.name.secured.sasl.enabled.mechanisms=PLAIN".to_owned(),
            format!(
                "listener.name.secured.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required{}{};",
                login(WRITER),
                login(STRANGER)
            ),
            "listener.name.secured.ssl.keystore.type=PEM".to_owned(),
            format!("listener.name.secured.ssl.keystore.location={}", identity.display()),
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
            // Without a login is only who comes through the plain listener.
            format!("super.users=User:ANONYMOUS;User:{}", WRITER.0),
        ];
        for property in properties {
            server.arguments.extend(["--property".to_owned(), property]);
        }
        server
            .run()
            .await
            .context("a broker with a secured listener")?;
        Ok(Self {
            server,
            brokers: format!("localhost:{port}"),
            ca: file("ca.pem", ca)?,
            other_ca: file("other-ca.pem", other_ca)?,
        })
    }

    /// The properties of a client that trusts the authority and logs in.
    pub fn properties(&self, (user, password): (&str, &str)) -> [(&'static str, String); 6] {
        [
            ("security.protocol", "SASL_SSL".to_owned()),
            ("sasl.mechanism", "PLAIN".to_owned()),
            ("sasl.username", user.to_owned()),
            ("sasl.password", password.to_owned()),
            ("ssl.ca.location", self.ca.display().to_string()),
            // The broker listens on one address.
            ("broker.address.family", "v4".to_owned()),
        ]
    }
}

/// An authority of one's own: its certificate, and what signs.
fn authority(name: &str) -> anyhow::Result<(String, Issuer<'static, KeyPair>)> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    // A certificate is taken for one that signed itself if it bears its issuer's name.
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), Issuer::new(params, key)))
}
