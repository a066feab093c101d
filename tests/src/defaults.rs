//! What services do unless they are told otherwise, by their `config.toml`.

use std::time::Duration;

use anyhow::Context;

use crate::process::root;

/// A duration among the defaults of a service, which is named by its folder.
pub fn duration(service: &str, section: &str, key: &str) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string(root().join(service).join("config.toml"))?;
    let defaults: toml::Table = toml::from_str(&text)?;
    let value = defaults.get(section).and_then(|section| section.get(key));
    let value = value.and_then(toml::Value::as_str);
    let value = value.with_context(|| format!("{service} has no default of {section}.{key}"))?;
    Ok(humantime_serde::re::humantime::parse_duration(value)?)
}
