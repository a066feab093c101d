//! `deploy/compose.yaml`, with its variables filled in.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::process::root;

/// The file.
pub struct Compose {
    /// The whole of it, as it stands there.
    pub document: Value,
    /// Its variables, each with its default; one without has to be set.
    pub variables: BTreeMap<String, Option<String>>,
}

impl Compose {
    /// That of this repository.
    pub fn ours() -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(root().join("deploy/compose.yaml"))?;
        let mut variables = BTreeMap::new();
        for (_, after) in text
            .match_indices("${")
            .filter_map(|(at, _)| text.split_at_checked(at))
        {
            let inside = after.get(2..).and_then(|inside| inside.split_once('}'));
            let (inside, _) = inside.context("an end of the variable")?;
            let (name, default) = variable(inside)?;
            variables.insert(name.to_owned(), default.map(str::to_owned));
        }
        Ok(Self {
            document: serde_saphyr::from_str(&text)?,
            variables,
        })
    }

    /// The services, by name.
    pub fn services(&self) -> impl Iterator<Item = (&str, &Value)> {
        let services = self.document.get("services").and_then(Value::as_object);
        services
            .into_iter()
            .flatten()
            .map(|(name, service)| (name.as_str(), service))
    }

    /// One service.
    pub fn service(&self, name: &str) -> anyhow::Result<&Value> {
        let found = self.services().find(|(other, _)| *other == name);
        found
            .map(|(_, service)| service)
            .with_context(|| format!("there is no service {name}"))
    }

    /// The environment of a service, its variables filled in from `set`.
    pub fn environment(
        &self,
        service: &Value,
        set: &BTreeMap<String, String>,
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let given = service.get("environment").and_then(Value::as_object);
        let filled = given.into_iter().flatten().map(|(name, value)| {
            let value = value
                .as_str()
                .with_context(|| format!("{name} is no text"))?;
            Ok((name.clone(), self.fill_in(value, set)?))
        });
        filled.collect()
    }

    /// `text` with its variables from `set`, or their defaults.
    pub fn fill_in(&self, text: &str, set: &BTreeMap<String, String>) -> anyhow::Result<String> {
        let mut parts = text.split("${");
        let mut filled = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (inside, after) = part.split_once('}').context("an end of the variable")?;
            let (name, default) = variable(inside)?;
            match set.get(name).map(String::as_str).or(default) {
                Some(value) => filled.push_str(value),
                None => bail!("{name} is not set"),
            }
            filled.push_str(after);
        }
        Ok(filled)
    }
}

/// Name and default of `NAME:-default` or `NAME:?message`.
fn variable(inside: &str) -> anyhow::Result<(&str, Option<&str>)> {
    match (inside.split_once(":-"), inside.split_once(":?")) {
        (Some((name, default)), _) => Ok((name, Some(default))),
        (None, Some((name, message))) if !message.is_empty() => Ok((name, None)),
        _ => bail!("{inside} has neither a default nor says what to do"),
    }
}

/// The texts of a list, such as a command.
pub fn words(list: Option<&Value>) -> Vec<String> {
    let texts = list
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(Value::as_str);
    texts.flatten().map(str::to_owned).collect()
}
