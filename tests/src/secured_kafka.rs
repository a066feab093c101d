//! A broker with further listeners that ask for TLS and a login: a password, a password that is not
//! sent (SCRAM), a certificate.

use std::path::PathBuf;

use anyhow::Context;

use crate::certificates::Authority;
use crate::server::{Server, free_port};
use crate::world::World;

/// A login with all rights.
pub const WRITER: (&str, &str) = ("writer", "writer-secret");

/// A login with no rights.
pub const STRANGER: (&str, &str) = ("stranger", "stranger-secret");

/// The properties of a client of librdkafka.
pub type Properties = Vec<(&'static str, String)>;

/// A broker, and how its secured listeners are reached.
pub struct SecuredKafka {
    /// The broker; its plain listener is the one that others use.
    pub server: Server,
    /// The listener that asks for a password.
    pub brokers: String,
    /// The certificate of the authority that the broker's is from.
    pub ca: PathBuf,
    /// The certificate of another one.
    pub other_ca: PathBuf,
    /// The listener that asks for a password and is not sent it.
    scram: String,
    /// The listener that asks for a certificate.
    mutual: String,
    /// The certificate of a client, and its key.
    identity: [PathBuf; 2],
}

impl SecuredKafka {
    /// Starts it.
    pub async fn start(world: &World) -> anyhow::Result<Self> {
        let authority = Authority::new("audit test", world.logs())?;
        let other = Authority::new("another", world.logs())?;
        let broker = authority.sign("broker")?;
        let identity = world.logs().join("broker.pem");
        std::fs::write(&identity, broker.key + &broker.certificate)?;
        let [password, scram, mutual] = [free_port()?, free_port()?, free_port()?];
        let mut server = Server::kafka(world.logs())?;
        let login = |(user, password): (&str, &str)| format!(" user_{user}=\"{password}\"");
        let properties = [
            format!(
                "listeners=PLAINTEXT://127.0.0.1:{{port}},CONTROLLER://{{controller}},SECURED://127.0.0.1:{password},\
                 SCRAM://127.0.0.1:{scram},MUTUAL://127.0.0.1:{mutual}"
            ),
            format!(
                "advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},SECURED://localhost:{password},\
                 SCRAM://localhost:{scram},MUTUAL://localhost:{mutual}"
            ),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL,SCRAM:SASL_SSL,MUTUAL:SSL"
                .to_owned(),
            "listener.name.secured.sasl.enabled.mechanisms=PLAIN".to_owned(),
            format!(
                "listener.name.secured.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required{}{};",
                login(WRITER),
                login(STRANGER)
            ),
            "listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512".to_owned(),
            "listener.name.scram.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;"
                .to_owned(),
            "listener.name.mutual.ssl.client.auth=required".to_owned(),
            "ssl.truststore.type=PEM".to_owned(),
            format!("ssl.truststore.location={}", authority.file.display()),
            "ssl.keystore.type=PEM".to_owned(),
            format!("ssl.keystore.location={}", identity.display()),
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
            // Without a login is only who comes through the plain listener.
            format!("super.users=User:ANONYMOUS;User:{0};User:CN={0}", WRITER.0),
        ];
        for property in properties {
            server.arguments.extend(["--property".to_owned(), property]);
        }
        let known = format!("{}={}", WRITER.0, WRITER.1);
        server.arguments.extend(["--scram".to_owned(), known]);
        server
            .run()
            .await
            .context("a broker with secured listeners")?;
        Ok(Self {
            server,
            brokers: format!("localhost:{password}"),
            ca: authority.file.clone(),
            other_ca: other.file,
            scram: format!("localhost:{scram}"),
            mutual: format!("localhost:{mutual}"),
            identity: authority.sign(WRITER.0)?.keep(world.logs(), "writer")?,
        })
    }

    /// The properties of a client that trusts the authority and logs in with a password.
    pub fn properties(&self, login: (&str, &str)) -> Properties {
        self.with_password("PLAIN", login)
    }

    /// Every way to log in with all rights: the listener, and the properties of a client.
    pub fn ways_in(&self) -> [(&str, Properties); 3] {
        let [certificate, key] = &self.identity;
        let mut mutual = self.trusting("SSL");
        mutual.extend([
            (
                "ssl.certificate.location",
                certificate.display().to_string(),
            ),
            ("ssl.key.location", key.display().to_string()),
        ]);
        [
            (&self.mutual, mutual),
            (&self.scram, self.with_password("SCRAM-SHA-512", WRITER)),
            (&self.brokers, self.properties(WRITER)),
        ]
    }

    fn with_password(&self, mechanism: &str, (user, password): (&str, &str)) -> Properties {
        let mut properties = self.trusting("SASL_SSL");
        properties.extend([
            ("sasl.mechanism", mechanism.to_owned()),
            ("sasl.username", user.to_owned()),
            ("sasl.password", password.to_owned()),
        ]);
        properties
    }

    fn trusting(&self, protocol: &str) -> Properties {
        vec![
            ("security.protocol", protocol.to_owned()),
            ("ssl.ca.location", self.ca.display().to_string()),
            // The broker listens on one address.
            ("broker.address.family", "v4".to_owned()),
        ]
    }
}
