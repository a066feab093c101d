//! From conditions to SQL. Values are bound to the query as parameters and never become part of
//! its text.
//!
//! A condition is written so that an index of the table answers it: an equality, not a list, for a
//! column with an index of its values, and the column `words` with its index. The index then
//! says which rows they are, and the column is not read. Source: `EXPLAIN indexes = 1` of
//! ClickHouse 26.7, where `IN` and `NOT` read the column.

use audit_schema::row::Millis;
use clickhouse::query::Query;

use super::network::{AddressRange, few};
use super::{Condition, Reach, Test};

/// The columns with an index of their values: `by_<column>` of the table.
const INDEXED: [&str; 7] = [
    "user_id",
    "organization_id",
    "identifier",
    "actor_id",
    "session_id",
    "request_id",
    "event_key",
];

/// Most values that are looked up in an index one by one.
const MAX_LOOKED_UP: usize = 16;

/// Most words the engine looks up together.
const MAX_WORDS: usize = 64;

/// What a query asks of an event, and the values bound to it.
#[derive(Debug, PartialEq)]
pub(crate) struct Predicate {
    /// What the event has to be.
    pub(crate) wanted: String,
    /// What it must not be, each of them.
    pub(crate) unwanted: Vec<String>,
    values: Vec<Value>,
}

/// A value bound to a query; its place in the list is its name.
#[derive(Debug, PartialEq)]
enum Value {
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<f64>),
    Millis(i64),
}

impl Predicate {
    /// The condition of all that `reach` covers.
    pub(crate) fn of(reach: &Reach) -> Self {
        let mut predicate = Self {
            wanted: String::new(),
            unwanted: Vec::new(),
            values: Vec::new(),
        };
        let project = predicate.text(reach.project.as_str(), "String");
        predicate.wanted = format!("project_id = {project}");
        if let Some(organization) = &reach.organization {
            let organization = predicate.text(organization, "String");
            predicate.narrow(&format!("organization_id = {organization}"));
        }
        predicate
    }

    /// Narrows it by a condition, in a set that was frozen at `frozen_at`.
    pub(crate) fn and(&mut self, condition: &Condition, frozen_at: Millis) {
        let test = self.test(&condition.test, frozen_at);
        if condition.excluded {
            self.unwanted.push(test);
        } else {
            self.narrow(&format!("({test})"));
        }
    }

    /// What stands behind `WHERE`.
    pub(crate) fn sql(&self) -> String {
        let unwanted = self
            .unwanted
            .iter()
            .map(|test| format!(" AND NOT ({test})"));
        self.wanted.clone() + &unwanted.collect::<String>()
    }

    fn narrow(&mut self, condition: &str) {
        self.wanted.push_str(" AND ");
        self.wanted.push_str(condition);
    }

    /// A query with the values bound to it.
    pub(crate) fn bind(self, query: Query) -> Query {
        let mut query = query;
        for (place, value) in self.values.into_iter().enumerate() {
            let name = name(place);
            query = match value {
                Value::Text(text) => query.param(&name, text),
                Value::Texts(texts) => query.param(&name, texts),
                Value::Numbers(numbers) => query.param(&name, numbers),
                Value::Millis(millis) => query.param(&name, millis),
            };
        }
        query
    }

    fn test(&mut self, test: &Test, frozen_at: Millis) -> String {
        match test {
            Test::Nothing => "false".to_owned(),
            Test::Column(column, values) if is_looked_up(test) => {
                let equal = values
                    .iter()
                    .map(|value| format!("{column} = {}", self.text(value, "String")));
                equal.collect::<Vec<_>>().join(" OR ")
            }
            Test::Column(column, values) => format!("{column} IN {}", self.texts(values)),
            Test::Types {
                documented,
                sent,
                begin,
            } => {
                let mut any = Vec::new();
                for (column, names) in [("documented_type", documented), ("event_type", sent)] {
                    if !names.is_empty() {
                        any.push(format!("{column} IN {}", self.texts(names)));
                    }
                }
                for beginning in begin {
                    let beginning = self.text(beginning, "String");
                    any.push(format!("startsWith(documented_type, {beginning})"));
                    any.push(format!("startsWith(event_type, {beginning})"));
                }
                any.join(" OR ")
            }
            Test::Country(values) => {
                let names = self.texts(values);
                let codes: Vec<_> = values.iter().map(|v| v.to_ascii_uppercase()).collect();
                let codes = self.texts(&codes);
                format!("country IN {names} OR country_code IN {codes}")
            }
            Test::Address(ranges) => {
                let mut any = vec!["false".to_owned()];
                if let Some(addresses) = few(ranges) {
                    any.extend(addresses.iter().map(|address| {
                        let address = self.text(&address.to_string(), "IPv6");
                        format!("toString(ip_address) = toString({address})")
                    }));
                } else {
                    any.extend(ranges.iter().map(|AddressRange { first, last }| {
                        let first = self.text(&first.to_string(), "IPv6");
                        let last = self.text(&last.to_string(), "IPv6");
                        format!("ip_address BETWEEN {first} AND {last}")
                    }));
                }
                any.join(" OR ")
            }
            Test::UserAgent(parts) => {
                let found = |part: &String| {
                    let part = self.text(part, "String");
                    format!("positionCaseInsensitive(user_agent, {part}) > 0")
                };
                parts.iter().map(found).collect::<Vec<_>>().join(" OR ")
            }
            Test::Words(texts) => {
                let all = texts.iter().map(|words| self.words(words));
                all.collect::<Vec<_>>().join(" OR ")
            }
            Test::Data { path, values } => self.data(path, values),
            Test::From(bound) => {
                let time = self.millis(bound.resolve(frozen_at));
                format!("created_at >= {time}")
            }
            Test::To(bound) => {
                let time = self.millis(bound.resolve(frozen_at));
                format!("created_at < {time}")
            }
            Test::Id(id) => format!("event_id = {}", self.text(id, "UUID")),
        }
    }

    /// All of these words, in small letters, are in the display name or the data.
    fn words(&mut self, words: &[String]) -> String {
        let all = words
            .chunks(MAX_WORDS)
            .map(|words| format!("hasAllTokens(words, {})", self.texts(words)));
        format!("({})", all.collect::<Vec<_>>().join(" AND "))
    }

    /// The value at a place in the event data, or each of its elements, is one of `values`. Where
    /// all of them are told by their words, data without these words is not taken apart.
    fn data(&mut self, path: &[String], values: &[String]) -> String {
        let exactly = self.data_exactly(path, values);
        let words: Option<Vec<_>> = values.iter().map(|value| words_in_data(value)).collect();
        let Some(words) = words else { return exactly };
        let mut any: Vec<_> = words.iter().map(|words| self.words(words)).collect();
        any.push("hasAnyTokens(words, ['U'])".to_owned());
        format!("({}) AND {exactly}", any.join(" OR "))
    }

    fn data_exactly(&mut self, path: &[String], values: &[String]) -> String {
        let keys: Vec<_> = path.iter().map(|key| self.text(key, "String")).collect();
        let place = format!("event_data, {}", keys.join(", "));
        let texts = self.texts(values);
        let mut any = vec![format!(
            "(JSONType(v) = 'String' AND JSONExtractString(v) IN {texts})"
        )];
        let numbers: Vec<_> = values.iter().filter_map(|value| number(value)).collect();
        if !numbers.is_empty() {
            let numbers = self.bound(Value::Numbers(numbers), "Array(Float64)");
            any.push(format!(
                "(JSONType(v) IN ('Int64', 'UInt64', 'Double') AND JSONExtractFloat(v) + 0 IN {numbers})"
            ));
        }
        let words = values
            .iter()
            .filter(|v| matches!(v.as_str(), "true" | "false"));
        let words: Vec<_> = words.cloned().collect();
        if !words.is_empty() {
            let words = self.texts(&words);
            any.push(format!("(JSONType(v) = 'Bool' AND v IN {words})"));
        }
        format!(
            "arrayExists(v -> {}, if(JSONType({place}) = 'Array', \
             JSONExtractArrayRaw({place}), [JSONExtractRaw({place})]))",
            any.join(" OR ")
        )
    }

    fn text(&mut self, text: &str, kind: &str) -> String {
        self.bound(Value::Text(text.to_owned()), kind)
    }

    fn texts(&mut self, texts: &[String]) -> String {
        self.bound(Value::Texts(texts.to_vec()), "Array(String)")
    }

    fn millis(&mut self, time: Millis) -> String {
        let time = self.bound(Value::Millis(time.0), "Int64");
        format!("fromUnixTimestamp64Milli({time}, 'UTC')")
    }

    /// How a value that is bound to the query is written in it.
    fn bound(&mut self, value: Value, kind: &str) -> String {
        let name = name(self.values.len());
        self.values.push(value);
        format!("{{{name}:{kind}}}")
    }
}

fn name(place: usize) -> String {
    format!("f{place}")
}

/// Whether an index knows the rows that pass.
pub(super) fn is_looked_up(test: &Test) -> bool {
    match test {
        Test::Column(column, values) => INDEXED.contains(column) && values.len() <= MAX_LOOKED_UP,
        Test::Address(ranges) => few(ranges).is_some(),
        Test::Words(_) | Test::Id(_) => true,
        _ => false,
    }
}

/// Words that are in the text of any data without a `\u` that has this value; `None` if that is not
/// sure of any. A number can be written in many ways. A control character is written as a letter,
/// which then is a part of the word behind it.
fn words_in_data(value: &str) -> Option<Vec<String>> {
    if number(value).is_some() {
        return None;
    }
    let mut words = Vec::new();
    for (place, line) in value.split(|c: char| c.is_ascii_control()).enumerate() {
        let behind_control = usize::from(place > 0);
        let whole = line.split(super::is_between_words).skip(behind_control);
        words.extend(
            whole
                .filter(|word| !word.is_empty())
                .map(str::to_ascii_lowercase),
        );
    }
    (!words.is_empty()).then_some(words)
}

/// The number that a text writes as JSON does.
fn number(text: &str) -> Option<f64> {
    let blank = |c: char| c.is_whitespace();
    if text.starts_with(blank) || text.ends_with(blank) {
        return None;
    }
    // serde_json knows what a number is, but not always the double that is nearest to it.
    serde_json::from_str::<serde_json::Number>(text).ok()?;
    // The engine compares bits here, and -0 is 0.
    let number = text.parse::<f64>().ok()? + 0.0;
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_an_escape_may_lengthen_is_not_looked_up() {
        let words = |value| words_in_data(value).map(|words| words.join(" "));
        assert_eq!(words("Ann's \"Phone\"").as_deref(), Some("ann s phone"));
        assert_eq!(words("é\nB C\tD-e").as_deref(), Some("é c e"));
        assert_eq!(words("\nx"), None);
        assert_eq!(words("-"), None);
        assert_eq!(words("4.5e1"), None);
    }

    #[test]
    fn a_number_is_the_nearest_double_of_what_json_calls_a_number() {
        assert_eq!(number("9007199254740993.0"), Some(9_007_199_254_740_992.0));
        assert_eq!(number("1e3"), Some(1_000.0));
        assert_eq!(number("-0").map(f64::to_bits), Some(0));
        for text in [
            "1e400", "01", "+1", "1.", ".5", "inf", "NaN", " 1", "1 ", "0x1", "", "1_0",
        ] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
