//! What can be asked for: one table, and how the values of each parameter are read.

use audit_schema::{CATALOGUE, CatalogueEntry, Category, EventId, EventType, Outcome};
use audit_service::ApiError;

use super::network::{AddressRange, ranges};
use super::time::Bound;
use super::{Condition, Test};
use crate::query_string::{echo, no_word};

/// Longest value of a filter, and longest path into event data, in characters: what the document
/// can say.
pub(crate) const MAX_CHARS: usize = 1_024;

/// Most values of one filter.
const MAX_VALUES: usize = 1_000;

/// Most values of a filter that the engine has to look for one by one.
const MAX_SOUGHT: usize = 100;

/// Deepest path into event data.
const MAX_PATH: usize = 8;

/// One parameter that narrows what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    /// The parameter.
    pub(crate) name: &'static str,
    values: Values,
    kind: Kind,
    /// What it matches, for whoever reads the reference.
    pub(crate) summary: &'static str,
}

/// How many values a field takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    /// One, and nothing is excluded by it.
    One,
    /// Several, by repetition.
    Many,
    /// Several, by repetition and separated by commas.
    List,
}

/// How a field's values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Column(&'static str),
    EventType,
    Category,
    Outcome,
    Country,
    Address,
    UserAgent,
    Words,
    From,
    To,
    Id,
}

macro_rules! fields {
    ($($constant:ident = $name:literal, $values:ident, $kind:expr, $summary:literal;)*) => {
        $(pub(crate) const $constant: Field = Field {
            name: $name,
            values: Values::$values,
            kind: $kind,
            summary: $summary,
        };)*

        /// Everything that can be asked for by a parameter of its own.
        pub(crate) const FIELDS: &[Field] = &[$($constant),*];
    };
}

fields! {
    USER_ID = "userId", Many, Kind::Column("user_id"),
        "the user it is about";
    ACTOR_ID = "actorId", Many, Kind::Column("actor_id"),
        "who did it";
    ORGANIZATION_ID = "organizationId", List, Kind::Column("organization_id"),
        "the organization it is about";
    IDENTIFIER = "identifier", Many, Kind::Column("identifier"),
        "e-mail address or name of the user it is about";
    EVENT_TYPE = "eventType", List, Kind::EventType,
        "what happened: a documented name, the plugin's name, or the beginning of one such as `security_*`";
    CATEGORY = "category", List, Kind::Category,
        "the group its documented type belongs to";
    EVENT_KEY = "eventKey", Many, Kind::Column("event_key"),
        "what it happened to";
    OUTCOME = "outcome", List, Kind::Outcome,
        "how it ended";
    SESSION_ID = "sessionId", Many, Kind::Column("session_id"),
        "the session it happened in";
    REQUEST_ID = "requestId", Many, Kind::Column("request_id"),
        "the request it happened in";
    IP = "ip", Many, Kind::Address,
        "the client's address, or a network it is in such as `192.0.2.0/24`";
    COUNTRY = "country", List, Kind::Country,
        "the client's country, by name or by its code of ISO 3166-1";
    CITY = "city", Many, Kind::Column("city"),
        "the client's city";
    USER_AGENT = "userAgent", Many, Kind::UserAgent,
        "a part of the client's user agent, A to Z like a to z";
    WORDS = "q", Many, Kind::Words,
        "words, all of which are in the event data or the display name, A to Z like a to z";
    FROM = "from", One, Kind::From,
        "created at this time or later: RFC 3339, milliseconds since 1970, or before now such as `-24h`";
    TO = "to", One, Kind::To,
        "created before this time; written like `from`";
}

/// The path of one event asks for it by id; no parameter does.
pub(crate) const ID: Field = Field {
    name: "id",
    values: Values::One,
    kind: Kind::Id,
    summary: "",
};

/// What the parameters for a place in the event data begin with.
pub(crate) const DATA: &str = "data.";

impl Field {
    /// Whether its values can be excluded.
    pub(crate) fn can_exclude(&self) -> bool {
        self.values != Values::One
    }

    /// Whether a comma separates its values.
    pub(crate) fn is_list(&self) -> bool {
        self.values == Values::List
    }

    /// The words it takes, if they are few.
    pub(crate) fn words(&self) -> Option<Vec<&'static str>> {
        match self.kind {
            Kind::Category => Some(Category::ALL.map(Category::as_str).to_vec()),
            Kind::Outcome => Some(Outcome::ALL.map(Outcome::as_str).to_vec()),
            _ => None,
        }
    }

    /// The condition that these values make; [`Test::Nothing`] if none of them says anything.
    pub(crate) fn condition(
        &self,
        excluded: bool,
        given: Vec<String>,
    ) -> Result<Condition, ApiError> {
        let name = parameter(self.name, excluded);
        if self.values == Values::One && given.len() > 1 {
            return Err(ApiError::invalid(name, "may be given only once"));
        }
        let values = self.split(given);
        let most = match self.kind {
            Kind::Address | Kind::UserAgent | Kind::Words => MAX_SOUGHT,
            _ => MAX_VALUES,
        };
        let values = bounded(&name, values, most)?;
        let test = if values.is_empty() {
            Test::Nothing
        } else {
            self.test(values)
                .map_err(|reason| ApiError::invalid(name.clone(), reason))?
        };
        Ok(Condition {
            name,
            excluded,
            test,
        })
    }

    /// The condition that an event has one of these values, whatever they are. It refuses none: what
    /// no event can have matches none. But for the two names of a type, each means itself.
    pub(crate) fn literal(&self, given: Vec<String>) -> Result<Condition, ApiError> {
        let values = self.split(given);
        few(self.name, &values, MAX_VALUES)?;
        let values = sorted(values.into_iter().filter(|value| !value.is_empty()));
        let test = match self.kind {
            _ if values.is_empty() => Test::Nothing,
            Kind::EventType => {
                let (documented, sent): (Vec<_>, Vec<_>) = values
                    .into_iter()
                    .partition(|value| CatalogueEntry::named(value).is_some());
                let names = documented
                    .iter()
                    .filter_map(|name| CatalogueEntry::named(name));
                Test::Types {
                    documented: sorted(names.map(|entry| entry.name.to_owned())),
                    sent,
                    begin: Vec::new(),
                }
            }
            _ => self
                .test(values)
                .map_err(|reason| ApiError::invalid(self.name, reason))?,
        };
        Ok(Condition {
            name: self.name.to_owned(),
            excluded: false,
            test,
        })
    }

    fn split(&self, given: Vec<String>) -> Vec<String> {
        match self.values {
            Values::One | Values::Many => given,
            Values::List => given
                .iter()
                .flat_map(|list| list.split(','))
                .map(str::trim)
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
                .collect(),
        }
    }

    fn test(&self, values: Vec<String>) -> Result<Test, String> {
        Ok(match self.kind {
            Kind::Column(column) => Test::Column(column, values),
            Kind::EventType => types(&values)?,
            Kind::Category => {
                let categories = self.known(&values)?;
                let entries = CATALOGUE.iter();
                let of = entries.filter(|entry| categories.contains(&entry.category.as_str()));
                Test::Column(
                    "documented_type",
                    sorted(of.map(|entry| entry.name.to_owned())),
                )
            }
            Kind::Outcome => {
                self.known(&values)?;
                Test::Column("outcome", values)
            }
            Kind::Country => Test::Country(values),
            Kind::Address => {
                let all: Result<Vec<Vec<AddressRange>>, _> =
                    values.iter().map(|value| ranges(value)).collect();
                Test::Address(all?.concat())
            }
            Kind::UserAgent => Test::UserAgent(values),
            Kind::Words => {
                let all: Result<Vec<_>, _> = values.iter().map(|text| words(text)).collect();
                Test::Words(all?)
            }
            Kind::From => Test::From(Bound::parse(&one(values))?),
            Kind::To => Test::To(Bound::parse(&one(values))?),
            Kind::Id => {
                let id = one(values).parse::<EventId>();
                Test::Id(id.map_err(|error| error.to_string())?.to_string())
            }
        })
    }

    /// The values, if all of them are words it takes.
    fn known<'a>(&self, values: &'a [String]) -> Result<Vec<&'a str>, String> {
        let words = self.words().unwrap_or_default();
        match values.iter().find(|value| !words.contains(&value.as_str())) {
            Some(unknown) => Err(no_word(unknown, &words)),
            None => Ok(values.iter().map(String::as_str).collect()),
        }
    }
}

/// The condition on a place in the event data; `path` is what stands behind [`DATA`].
pub(crate) fn data_condition(
    path: &str,
    excluded: bool,
    given: Vec<String>,
) -> Result<Condition, ApiError> {
    let name = parameter(&format!("{DATA}{path}"), excluded);
    let keys: Vec<_> = path.split('.').map(str::to_owned).collect();
    if keys.len() > MAX_PATH || keys.iter().any(String::is_empty) || is_long(path) {
        let reason = format!("is no path; write 1 to {MAX_PATH} keys with a dot between them");
        return Err(ApiError::invalid(echo(&name), reason));
    }
    let values = bounded(&name, given, MAX_SOUGHT)?;
    let test = Test::Data { path: keys, values };
    Ok(Condition {
        name,
        excluded,
        test,
    })
}

/// A parameter's name as it was given.
pub(super) fn parameter(name: &str, excluded: bool) -> String {
    let not = if excluded { super::NOT } else { "" };
    format!("{not}{name}")
}

/// The values without those that are empty, in one order, if they are not too many or too long.
fn bounded(name: &str, values: Vec<String>, most: usize) -> Result<Vec<String>, ApiError> {
    few(name, &values, most)?;
    if values.iter().any(|value| is_long(value)) {
        let reason = format!("a value may have at most {MAX_CHARS} characters");
        return Err(ApiError::invalid(echo(name), reason));
    }
    Ok(sorted(values.into_iter().filter(|value| !value.is_empty())))
}

fn is_long(text: &str) -> bool {
    text.chars().count() > MAX_CHARS
}

fn few(name: &str, values: &[String], most: usize) -> Result<(), ApiError> {
    if values.len() > most {
        let reason = format!("may have at most {most} values");
        return Err(ApiError::invalid(echo(name), reason));
    }
    Ok(())
}

fn sorted(values: impl Iterator<Item = String>) -> Vec<String> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values.dedup();
    values
}

fn one(values: Vec<String>) -> String {
    values.into_iter().next().unwrap_or_default()
}

/// Sorts out documented names, other names and beginnings of names.
fn types(values: &[String]) -> Result<Test, String> {
    let (mut documented, mut sent, mut begin) = (Vec::new(), Vec::new(), Vec::new());
    for value in values {
        let prefix = value.strip_suffix('*');
        match (prefix, CatalogueEntry::named(value)) {
            (Some(""), _) => return Err("needs a beginning before the *".to_owned()),
            (None, Some(entry)) => documented.push(entry.name.to_owned()),
            (prefix, _) => {
                EventType::new(value.as_str()).map_err(|error| error.to_string())?;
                match prefix {
                    Some(prefix) => begin.push(prefix.to_owned()),
                    None => sent.push(value.clone()),
                }
            }
        }
    }
    Ok(Test::Types {
        documented: sorted(documented.into_iter()),
        sent,
        begin,
    })
}

/// The words of a text: longest runs of ASCII letters, digits and everything beyond ASCII.
fn words(text: &str) -> Result<Vec<String>, String> {
    let found = text
        .split(super::is_between_words)
        .filter(|word| !word.is_empty());
    let words = sorted(found.map(str::to_ascii_lowercase));
    if words.is_empty() {
        Err("has no word; write letters or digits".to_owned())
    } else {
        Ok(words)
    }
}
