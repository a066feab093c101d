//! What the services say of themselves: whether they know a setting or an argument, and how long
//! they take to stop.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use audit_tests::defaults;
use audit_tests::image::{Image, Staged};

/// What a value is that an operator has to fill in.
pub(crate) const PASSWORD: &str = "0123456789abcdef0123456789abcdef";

/// The version of this workspace.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The port of `AUDIT_<SERVICE>_<SECTION>__LISTEN` in an image; none if it has no such address.
pub(crate) fn port(image: &Image, section: &str) -> Option<u16> {
    let suffix = format!("_{section}__LISTEN");
    let mut listens = image
        .environment
        .iter()
        .filter(|(name, _)| name.ends_with(&suffix));
    let (_, address) = listens.next()?;
    Some(
        address
            .strip_prefix("0.0.0.0:")
            .expect("all addresses")
            .parse()
            .unwrap(),
    )
}

/// Panics unless the service takes these settings, and has its admin port where the image says:
/// its healthcheck reads them all, and names the port it asks.
pub(crate) fn takes_settings(
    image: &Image,
    settings: &BTreeMap<String, String>,
    config: Option<&Path>,
) {
    let prefix = prefix(image);
    for name in settings.keys() {
        assert!(
            name.starts_with(&prefix),
            "{name} is no setting of {prefix}"
        );
    }
    let said = healthcheck(image, settings, config);
    let port = port(image, "ADMIN").expect("an admin port");
    assert!(
        said.contains(&format!("http://127.0.0.1:{port}/readyz")),
        "{settings:?}: {said}"
    );
}

/// What its healthcheck says with these settings, where no such service runs.
pub(crate) fn healthcheck(
    image: &Image,
    settings: &BTreeMap<String, String>,
    config: Option<&Path>,
) -> String {
    let folder = tempfile::tempdir().unwrap();
    let staged = Staged::new(image, folder.path()).unwrap();
    let mut environment = image.environment.clone();
    environment.extend(settings.clone());
    let mut command = staged
        .command(image, &image.healthcheck, &environment)
        .unwrap();
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    let output = command.output().unwrap();
    assert!(
        !output.status.success(),
        "a service runs here already: {image:?}"
    );
    String::from_utf8(output.stderr).unwrap()
}

/// Panics unless the program takes these arguments.
pub(crate) fn takes_arguments(image: &Image, entrypoint: &[String], arguments: &[String]) {
    let folder = tempfile::tempdir().unwrap();
    let staged = Staged::new(image, folder.path()).unwrap();
    let words = [entrypoint, arguments, &["--help".to_owned()]].concat();
    let output = staged
        .command(image, &words, &BTreeMap::new())
        .unwrap()
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The beginning of the names of its settings.
pub(crate) fn prefix(image: &Image) -> String {
    let program = image.entrypoint[0].to_ascii_uppercase().replace('-', "_");
    format!("{program}_")
}

/// How long a service with an API answers new requests after it was asked to stop, by its defaults.
pub(crate) fn stay_open(target: &str) -> Duration {
    defaults::duration(target, "http", "stay_open").unwrap()
}

/// How long a service may take to stop, by its defaults.
pub(crate) fn longest_stop(target: &str) -> Duration {
    let duration = |section: &str, key: &str| defaults::duration(target, section, key).unwrap();
    match target {
        "ingest" => {
            let under_way = duration("shutdown", "requests") + duration("shutdown", "events");
            stay_open(target) + under_way
        }
        "consumer" => duration("shutdown", "budget") * 3,
        // `STOP_MARGIN`, for its tasks and for its events.
        "query-api" => {
            stay_open(target) + duration("http", "request_timeout") + Duration::from_secs(4)
        }
        _ => panic!("{target} is no service"),
    }
}
