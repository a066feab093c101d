//! Configuration: one annotated file compiled in, then a file, then the environment.
//!
//! The compiled-in file is the documentation of the defaults, so the two cannot drift apart. A
//! key nobody reads is a typo: it is refused, in the file and in the environment, with the names
//! that exist. A value `file:PATH` is what stands in that file, so that a secret needs to be neither
//! in the environment nor in the configuration. This module is the only place that reads the
//! environment.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use ::config::{Value, ValueKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// How a value begins that is in a file.
const IN_FILE: &str = "file:";

/// Says what is wrong with values that have the right type.
pub trait Validate {
    /// Every complaint, each a sentence that names the key; none if all is well.
    fn complaints(&self) -> Vec<String>;
}

/// Why a service cannot start with the configuration it was given.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file is missing or is no TOML, a key is unknown, a value has another type.
    #[error("the configuration cannot be read")]
    Unreadable(#[from] ::config::ConfigError),
    /// The file that a value is in cannot be read.
    #[error("the value of {key} cannot be read from {file}")]
    ValueFile {
        /// The key, as in `clickhouse.password`.
        key: String,
        /// The file it names.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Values that are no good; all of them.
    #[error("the configuration is refused:\n  - {}", .0.join("\n  - "))]
    Refused(Vec<String>),
}

/// Loads the configuration of `service`: `defaults`, then `file`, then the environment variables
/// `AUDIT_<SERVICE>_<SECTION>__<KEY>`, later ones winning.
pub fn load<T: DeserializeOwned + Validate>(
    service: &'static str,
    defaults: &str,
    file: Option<&Path>,
) -> Result<T, ConfigError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    layer(service, defaults, file, environment)
}

fn layer<T: DeserializeOwned + Validate>(
    service: &'static str,
    defaults: &str,
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let prefix = format!("AUDIT_{}_", service.to_ascii_uppercase().replace('-', "_"));
    let settings: HashMap<String, String> = environment
        .filter(|(name, _)| {
            name.strip_prefix(&prefix)
                .is_some_and(|key| !is_service_link(key))
        })
        .collect();
    let mut layers = ::config::Config::builder().add_source(::config::File::from_str(
        defaults,
        ::config::FileFormat::Toml,
    ));
    if let Some(file) = file {
        layers = layers.add_source(::config::File::from(file).format(::config::FileFormat::Toml));
    }
    let mut values = layers
        .add_source(
            ::config::Environment::with_prefix(prefix.trim_end_matches('_'))
                .prefix_separator("_")
                .separator("__")
                .source(Some(settings)),
        )
        .build()?
        .cache;
    read_files(&mut values, "")?;
    let loaded = T::deserialize(values)?;
    match loaded.complaints() {
        complaints if complaints.is_empty() => Ok(loaded),
        complaints => Err(ConfigError::Refused(complaints)),
    }
}

/// Puts in the place of every value `file:PATH` what the file has.
fn read_files(value: &mut Value, key: &str) -> Result<(), ConfigError> {
    match &mut value.kind {
        ValueKind::Table(table) => {
            for (name, value) in table {
                let key = match key {
                    "" => name.clone(),
                    section => format!("{section}.{name}"),
                };
                read_files(value, &key)?;
            }
        }
        ValueKind::String(text) => {
            if let Some(file) = text.strip_prefix(IN_FILE) {
                *text = read_value(Path::new(file)).map_err(|source| ConfigError::ValueFile {
                    key: key.to_owned(),
                    file: file.into(),
                    source,
                })?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The text in a file, without the line's end that editors put there.
fn read_value(file: &Path) -> std::io::Result<String> {
    let text = std::fs::read_to_string(file)?;
    let value = text.trim_end_matches(['\r', '\n']);
    if value.is_empty() {
        // Most empty values mean "none", which nobody means who made a file.
        return Err(std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            "it is empty",
        ));
    }
    Ok(value.to_owned())
}

/// Whether Kubernetes made this variable for a Service of our name: it puts
/// `AUDIT_INGEST_SERVICE_HOST`, `AUDIT_INGEST_PORT_4600_TCP` and the like into every pod.
fn is_service_link(key: &str) -> bool {
    let link = |word: &str| {
        key.strip_prefix(word)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    };
    !key.contains("__") && (link("SERVICE_HOST") || link("SERVICE_PORT") || link("PORT"))
}

/// A value that is never printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Further properties of a client library, such as librdkafka's `sasl.password`.
///
/// A name may be written with `_` for `.`, because a shell has no variables with dots:
/// `AUDIT_INGEST_KAFKA__PROPERTIES__SASL_PASSWORD`. Values do not print.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Properties(BTreeMap<String, Secret>);

impl Properties {
    /// Names with dots, and their values.
    pub fn iter(&self) -> impl Iterator<Item = (String, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.replace('_', "."), value.expose()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const DEFAULTS: &str = r#"
        [http]
        listen = "127.0.0.1:1"
        wait = "250ms"
        [kafka]
        password = ""
        [kafka.properties]
    "#;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        http: Http,
        kafka: Kafka,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Http {
        listen: std::net::SocketAddr,
        #[serde(with = "humantime_serde")]
        wait: Duration,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Kafka {
        password: Secret,
        properties: Properties,
    }

    impl Validate for Example {
        fn complaints(&self) -> Vec<String> {
            let mut complaints = Vec::new();
            if self.http.wait.is_zero() {
                complaints.push("http.wait must not be 0".to_owned());
            }
            if self.http.listen.port() == 0 {
                complaints.push("http.listen needs a port".to_owned());
            }
            complaints
        }
    }

    fn text(error: ConfigError) -> String {
        match error {
            ConfigError::Unreadable(source) => source.to_string(),
            other => crate::telemetry::with_causes(&other),
        }
    }

    fn load(file: Option<&str>, environment: &[(&str, &str)]) -> Result<Example, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("example.conf");
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
        }
        let environment = environment
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        layer(
            "my-example",
            DEFAULTS,
            file.map(|_| path.as_path()),
            environment,
        )
        .map_err(text)
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
        let file = "[http]\nlisten = '127.0.0.1:2'\nwait = '1s'";
        let loaded = load(Some(file), &[("AUDIT_MY_EXAMPLE_HTTP__WAIT", "2s")]).unwrap();
        assert_eq!(loaded.http.listen.port(), 2);
        assert_eq!(loaded.http.wait, Duration::from_secs(2));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_valid_names() {
        let in_file = load(Some("[http]\nlissen = 'x'"), &[]).unwrap_err();
        let in_environment = load(None, &[("AUDIT_MY_EXAMPLE_HTTP__LISSEN", "x")]).unwrap_err();
        for error in [in_file, in_environment] {
            assert!(
                error.contains("lissen") && error.contains("listen"),
                "{error}"
            );
        }
        let section = load(None, &[("AUDIT_MY_EXAMPLE_HTTTP__LISTEN", "x")]).unwrap_err();
        assert!(
            section.contains("htttp") && section.contains("kafka"),
            "{section}"
        );
    }

    #[test]
    fn variables_of_other_services_and_of_kubernetes_are_not_ours() {
        let theirs = [
            ("AUDIT_OTHER_HTTP__X", "x"),
            ("AUDIT_MY_EXAMPLE_SERVICE_HOST", "10.0.0.1"),
            ("AUDIT_MY_EXAMPLE_SERVICE_PORT_HTTP", "80"),
            ("AUDIT_MY_EXAMPLE_PORT", "tcp://10.0.0.1:80"),
            ("AUDIT_MY_EXAMPLE_PORT_80_TCP_ADDR", "10.0.0.1"),
        ];
        assert!(load(None, &theirs).is_ok());
        assert!(load(None, &[("AUDIT_MY_EXAMPLE_PORTS", "1")]).is_err());
    }

    #[test]
    fn all_complaints_come_at_once() {
        let error = load(Some("[http]\nlisten = '127.0.0.1:0'\nwait = '0s'"), &[]).unwrap_err();
        assert!(
            error.contains("http.wait") && error.contains("http.listen"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let missing = Path::new("/nowhere/example.toml");
        let loaded = layer::<Example>("my-example", DEFAULTS, Some(missing), std::iter::empty())
            .map_err(text);
        assert!(loaded.unwrap_err().contains("/nowhere/example.toml"));
    }

    #[test]
    fn a_secret_is_read_as_it_is_and_never_printed() {
        let loaded = load(
            None,
            &[
                ("AUDIT_MY_EXAMPLE_KAFKA__PASSWORD", "0123"),
                ("AUDIT_MY_EXAMPLE_KAFKA__PROPERTIES__SASL_PASSWORD", "4567"),
            ],
        )
        .unwrap();
        assert_eq!(loaded.kafka.password.expose(), "0123");
        let properties: Vec<_> = loaded.kafka.properties.iter().collect();
        assert_eq!(properties, [("sasl.password".to_owned(), "4567")]);
        let printed = format!("{loaded:?}");
        assert!(
            !printed.contains("0123") && !printed.contains("4567"),
            "{printed}"
        );
    }

    #[test]
    fn a_value_may_be_in_a_file_and_is_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, " 0123 \r\n").unwrap();
        let value = format!("file:{}", path.display());
        let in_file = format!("[kafka.properties]\n'sasl.password' = '{value}'");
        let environment = [("AUDIT_MY_EXAMPLE_KAFKA__PASSWORD", value.as_str())];
        let loaded = load(Some(&in_file), &environment).unwrap();
        assert_eq!(loaded.kafka.password.expose(), " 0123 ");
        let properties: Vec<_> = loaded.kafka.properties.iter().collect();
        assert_eq!(properties, [("sasl.password".to_owned(), " 0123 ")]);
        let printed = format!("{loaded:?}");
        assert!(!printed.contains("0123"), "{printed}");
        // Any value: a file may hold an address as well.
        std::fs::write(&path, "127.0.0.1:3").unwrap();
        let environment = [("AUDIT_MY_EXAMPLE_HTTP__LISTEN", value.as_str())];
        assert_eq!(load(None, &environment).unwrap().http.listen.port(), 3);
    }

    #[test]
    fn a_file_of_a_value_that_is_missing_empty_or_no_text_is_named_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let value = format!("file:{}", path.display());
        let environment = [("AUDIT_MY_EXAMPLE_KAFKA__PASSWORD", value.as_str())];
        for (content, reason) in [
            (None, "No such file"),
            (Some(&b"\n"[..]), "it is empty"),
            (Some(b"\xff0123"), "valid UTF-8"),
        ] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error = load(None, &environment).unwrap_err();
            for part in ["kafka.password", path.to_str().unwrap(), reason] {
                assert!(error.contains(part), "{part}: {error}");
            }
            assert!(!error.contains("0123"), "{error}");
        }
    }
}
