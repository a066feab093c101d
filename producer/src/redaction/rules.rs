//! The rule file, and the rules made of it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use audit_schema::{CATALOGUE, Category, Event, EventType};
use serde::Deserialize;

use super::key_name::KeyName;
use super::replace::Action;
use super::walk::Place;

/// The names of the plugin's security events. Their documented name follows from their data, so a
/// rule for any documented one is for all of them.
const SECURITY_AS_SENT: [&str; 2] = ["security_check", "security_signal"];

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RuleFile {
    drop_keys: Vec<KeyName>,
    rules: Vec<RuleText>,
}

impl Default for RuleFile {
    fn default() -> Self {
        let names = ["password", "token", "secret", "authorization"];
        let drop_keys = names.map(|name| KeyName::try_from(name.to_owned()));
        Self {
            drop_keys: drop_keys.into_iter().flatten().collect(),
            rules: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    #[serde(default)]
    types: Types,
    path: Option<Target>,
    action: Option<Action>,
}

/// The rules, sorted by what they are for; among those for one value the first counts.
#[derive(Debug)]
pub(super) struct Rules {
    drop_keys: Vec<KeyName>,
    data: Vec<(Path, Types, Action)>,
    fields: BTreeMap<Field, Vec<(Types, Action)>>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            drop_keys: RuleFile::default().drop_keys,
            data: Vec::new(),
            fields: BTreeMap::new(),
        }
    }
}

impl Rules {
    /// Reads a rule file; otherwise the text says what to mend.
    pub(super) fn parse(text: &str, can_hash: bool) -> Result<Self, String> {
        let file: RuleFile =
            toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        let mut rules = Self {
            drop_keys: file.drop_keys,
            ..Self::default()
        };
        for (number, rule) in (1..).zip(file.rules) {
            rules
                .add(rule, can_hash)
                .map_err(|reason| format!("rule {number} {reason}"))?;
        }
        Ok(rules)
    }

    fn add(&mut self, rule: RuleText, can_hash: bool) -> Result<(), &'static str> {
        let target = rule.path.ok_or("has no `path`")?;
        let action = rule
            .action
            .ok_or("has no `action`: write drop, hash or truncate")?;
        if action == Action::Hash && !can_hash {
            return Err(
                "hashes, which needs the setting `hash_key`: a secret text of 32 characters or more",
            );
        }
        match target {
            Target::Data(path) => self.data.push((path, rule.types, action)),
            Target::Field(field) => {
                match (field, action) {
                    // Equal keys stay equal, so events keep their order; no other action keeps it.
                    (Field::EventKey, Action::Drop | Action::Truncate) => {
                        return Err(
                            "would mix up the order of events, which follows `eventKey`: hash it",
                        );
                    }
                    (Field::IpAddress, Action::Hash) => {
                        return Err(
                            "cannot hash `ipAddress`, which holds no text: truncate or drop it",
                        );
                    }
                    _ => {}
                }
                let of_field = self.fields.entry(field).or_default();
                of_field.push((rule.types, action));
            }
        }
        Ok(())
    }

    /// What is to be done to which fields of events of a type.
    pub(super) fn fields_of(&self, event_type: &str) -> impl Iterator<Item = (Field, Action)> {
        self.fields.iter().filter_map(move |(field, rules)| {
            let (_, action) = rules.iter().find(|(types, _)| types.contain(event_type))?;
            Some((*field, *action))
        })
    }

    /// What is to be done to a value of event data.
    ///
    /// A rule that names the key itself says more than `drop_keys`, a rule for any key says less:
    /// it is not asked whether a password may be hashed.
    pub(super) fn action_at(&self, place: &Place<'_>, event_type: &str) -> Option<Action> {
        let rule = self
            .data
            .iter()
            .find(|(path, types, _)| path.leads_to(place) && types.contain(event_type));
        let is_dropped = || {
            let key = place.key?;
            let named = self.drop_keys.iter().any(|name| name.ends(key));
            named.then_some(Action::Drop)
        };
        match rule {
            Some((path, _, action)) if path.names_its_key() => Some(*action),
            Some((_, _, action)) => is_dropped().or(Some(*action)),
            None => is_dropped(),
        }
    }
}

/// The event types a rule is for.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Vec<String>")]
struct Types {
    names: Vec<String>,
    beginnings: Vec<String>,
}

/// Every type.
impl Default for Types {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            beginnings: vec![String::new()],
        }
    }
}

impl TryFrom<Vec<String>> for Types {
    type Error = String;

    fn try_from(patterns: Vec<String>) -> Result<Self, String> {
        if patterns.is_empty() {
            return Err("a rule for no type does nothing: leave `types` out for every type".into());
        }
        let (mut names, mut beginnings) = (Vec::new(), Vec::new());
        for pattern in patterns {
            let (name, is_beginning) = match pattern.strip_suffix('*') {
                Some(beginning) => (beginning, true),
                None => (pattern.as_str(), false),
            };
            let reads_well = EventType::new(name).is_ok() || (is_beginning && name.is_empty());
            if !reads_well || name.contains('*') {
                return Err(format!(
                    "{pattern:?} names no event type: write a name such as user_signed_in, or the beginning of names with a `*` at its end"
                ));
            }
            for entry in CATALOGUE {
                let both = [Some(entry.name), entry.wire_name];
                let meant = both
                    .into_iter()
                    .flatten()
                    .any(|other| other == name || (is_beginning && other.starts_with(name)));
                let as_sent = (entry.category == Category::Security).then_some(SECURITY_AS_SENT);
                if meant {
                    names.extend(both.into_iter().flatten().map(str::to_owned));
                    names.extend(as_sent.into_iter().flatten().map(str::to_owned));
                }
            }
            if is_beginning {
                beginnings.push(name.to_owned());
            } else {
                names.push(name.to_owned());
            }
        }
        Ok(Self { names, beginnings })
    }
}

impl Types {
    fn contain(&self, event_type: &str) -> bool {
        let begins = |beginning: &String| event_type.starts_with(beginning.as_str());
        self.beginnings.iter().any(begins) || self.names.iter().any(|name| name == event_type)
    }
}

/// What a rule is about.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
enum Target {
    Field(Field),
    Data(Path),
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(path: String) -> Result<Self, String> {
        if let Some(field) = Field::named(&path) {
            return Ok(Self::Field(field));
        }
        let (first, keys) = path.split_once('.').unwrap_or((path.as_str(), ""));
        match first {
            "data" => Path::read(keys).map(Self::Data),
            "id" | "projectId" | "createdAt" | "eventType" | "outcome" => Err(format!(
                "`{first}` stays as it is: identity, isolation and meaning of an event rest on it"
            )),
            _ => Err(format!(
                "`{path}` is no field of an event: write `data.{path}` if it is a key of the event data, or one of {}",
                Field::NAMES.join(", ")
            )),
        }
    }
}

/// The keys that lead to a value of event data; `None` is any key, or any place in a list.
#[derive(Debug)]
struct Path(Vec<Option<String>>);

impl Path {
    fn read(keys: &str) -> Result<Self, String> {
        let keys = keys.split('.').map(|key| match key {
            "" => Err(
                "a path names keys: `data.userEmail`, `data.members.*.email`, or `data.*` for all",
            ),
            "*" => Ok(None),
            key if key.contains('*') => Err("a `*` in a path is for a whole key"),
            key => Ok(Some(key.to_owned())),
        });
        Ok(Self(keys.collect::<Result<_, _>>()?))
    }

    fn leads_to(&self, place: &Place<'_>) -> bool {
        let mut at = Some(place);
        for key in self.0.iter().rev() {
            match at {
                Some(place) if key.is_none() || key.as_deref() == place.key => at = place.above,
                _ => return false,
            }
        }
        at.is_none()
    }

    fn names_its_key(&self) -> bool {
        self.0.last().is_some_and(Option::is_some)
    }
}

macro_rules! fields {
    ($($field:ident = $name:literal at $($place:ident).+),* $(,)?) => {
        /// A text of an event beside its data.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Field { $($field,)* IpAddress }

        impl Field {
            pub(super) const NAMES: &[&str] = &[$($name,)* "ipAddress"];

            fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$field),)*
                    "ipAddress" => Some(Self::IpAddress),
                    _ => None,
                }
            }

            /// The field as text; empty if it is not given.
            pub(super) fn text<'e>(self, event: &'e Event<'_>) -> Cow<'e, str> {
                match self {
                    $(Self::$field => Cow::Borrowed(event.$($place).+.as_ref()),)*
                    Self::IpAddress => event
                        .location
                        .ip_address
                        .map_or(Cow::Borrowed(""), |address| Cow::Owned(address.to_string())),
                }
            }

            /// Sets the field. A text that is no address is none.
            pub(super) fn set(self, event: &mut Event<'_>, text: String) {
                match self {
                    $(Self::$field => event.$($place).+ = Cow::Owned(text),)*
                    Self::IpAddress => event.location.ip_address = text.parse().ok(),
                }
            }
        }
    };
}

fields! {
    EventKey = "eventKey" at event_key,
    EventDisplayName = "eventDisplayName" at event_display_name,
    UserId = "userId" at user_id,
    OrganizationId = "organizationId" at organization_id,
    Identifier = "identifier" at identifier,
    ActorId = "actor.id" at actor.id,
    SessionId = "sessionId" at session_id,
    RequestId = "requestId" at request_id,
    UserAgent = "userAgent" at user_agent,
    City = "city" at location.city,
    Country = "country" at location.country,
    CountryCode = "countryCode" at location.country_code,
}
