//! How durable an event has to be, by its type.

use std::collections::{BTreeMap, HashMap};

use audit_schema::{CATALOGUE, Category, EventType};
use serde::Deserialize;

/// What may happen to an event while Kafka does not take it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// It is resolved only when Kafka has it, or when it is on disk, synced: it survives the loss
    /// of power. If neither is possible it is refused, and is not counted as lost: its caller
    /// refuses what it was about to do.
    Require,
    /// It goes to the spool, and survives the death of the process at once, and the loss of power
    /// as the spool's `fsync` says.
    #[default]
    Spool,
    /// It waits in memory alone: it is dropped where memory is full, and counted.
    BestEffort,
}

/// Which events are how durable: by type, then by category, then the default.
///
/// ```
/// use audit_producer::{Durability, DurabilityConfig};
///
/// let config: DurabilityConfig = toml::from_str(r#"
///     default = "spool"
///     [types]
///     user_deleted = "require"
///     "security_*" = "require"
///     [categories]
///     session = "best_effort"
/// "#)?;
/// assert_eq!(config.default, Durability::Spool);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DurabilityConfig {
    /// Of events that nothing else is said about. Default: [`Durability::Spool`].
    pub default: Durability,
    /// By documented or sent name; a `*` at the end stands for any rest. The longest name counts.
    /// Default: none.
    pub types: BTreeMap<String, Durability>,
    /// By category of the catalogue. Default: none.
    pub categories: BTreeMap<Category, Durability>,
}

/// The same, ready to be asked for each event.
#[derive(Debug)]
pub(crate) struct DurabilityRules {
    default: Durability,
    names: HashMap<String, Durability>,
    /// The longest first.
    prefixes: Vec<(String, Durability)>,
}

impl DurabilityRules {
    pub(crate) fn new(config: &DurabilityConfig) -> Self {
        let mut names = HashMap::new();
        for entry in CATALOGUE {
            let of_category = config.categories.get(&entry.category).copied();
            let both = [Some(entry.name), entry.wire_name];
            let of_type = both
                .iter()
                .flatten()
                .find_map(|name| config.types.get(*name).copied());
            if let Some(durability) = of_type.or(of_category) {
                let all = both.into_iter().flatten();
                names.extend(all.map(|name| (name.to_owned(), (durability, of_type.is_some()))));
            }
        }
        let mut prefixes = Vec::new();
        for (name, durability) in &config.types {
            match name.strip_suffix('*') {
                Some(prefix) => prefixes.push((prefix.to_owned(), *durability)),
                None => drop(names.insert(name.clone(), (*durability, true))),
            }
        }
        prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        // A category says less about a type than a beginning of its name does.
        names.retain(|name, (_, by_type)| {
            *by_type || !prefixes.iter().any(|(prefix, _)| name.starts_with(prefix))
        });
        Self {
            default: config.default,
            names: names
                .into_iter()
                .map(|(name, (durability, _))| (name, durability))
                .collect(),
            prefixes,
        }
    }

    pub(crate) fn of(&self, event_type: &EventType<'_>) -> Durability {
        let name = event_type.as_str();
        if let Some(durability) = self.names.get(name) {
            return *durability;
        }
        let by_prefix = self
            .prefixes
            .iter()
            .find(|(prefix, _)| name.starts_with(prefix));
        by_prefix.map_or(self.default, |(_, durability)| *durability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(config: &str, name: &'static str) -> Durability {
        let config = toml::from_str(config).unwrap();
        DurabilityRules::new(&config).of(&EventType::new(name).unwrap())
    }

    #[test]
    fn a_type_says_more_than_a_prefix_and_a_prefix_more_than_a_category() {
        let config = r#"
            default = "best_effort"
            [types]
            user_deleted = "require"
            "user_*" = "spool"
            [categories]
            user = "best_effort"
            session = "require"
        "#;
        assert_eq!(of(config, "user_deleted"), Durability::Require);
        assert_eq!(of(config, "user_banned"), Durability::Spool);
        assert_eq!(of(config, "session_created"), Durability::Require);
        assert_eq!(of(config, "profile_updated"), Durability::BestEffort);
        assert_eq!(of(config, "invoice.paid"), Durability::BestEffort);
    }

    #[test]
    fn the_longest_prefix_counts() {
        let config = r#"
            [types]
            "invoice.*" = "require"
            "invoice.draft.*" = "best_effort"
        "#;
        assert_eq!(of(config, "invoice.paid"), Durability::Require);
        assert_eq!(of(config, "invoice.draft.saved"), Durability::BestEffort);
    }

    #[test]
    fn a_type_is_meant_under_both_its_names() {
        for named in ["member_added", "organization_member_added"] {
            let config = format!("[types]\n{named} = \"require\"");
            assert_eq!(of(&config, "member_added"), Durability::Require);
            assert_eq!(
                of(&config, "organization_member_added"),
                Durability::Require
            );
        }
    }

    #[test]
    fn without_rules_every_event_is_spooled() {
        assert_eq!(of("", "user_signed_in"), Durability::Spool);
    }
}
