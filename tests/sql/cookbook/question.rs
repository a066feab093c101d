//! One file of the cookbook: its header, which people read, as what can be checked.

use std::path::Path;

use crate::stand::Stand;

/// A question with all that its header says.
#[derive(Debug)]
pub(super) struct Question {
    /// The name of the file, without its ending.
    pub(super) name: String,
    /// The first line.
    pub(super) words: String,
    /// Names and values of the sample, but for the project.
    pub(super) parameters: Vec<(String, String)>,
    /// What it says it reads by.
    pub(super) reads_by: Vec<String>,
    /// The answer it says it gives.
    pub(super) sample: String,
    text: String,
}

/// How a line of the header begins.
const COMMENT: &str = "-- ";
const PARAMETERS: &str = "-- Takes, with the values of the sample:";
const READS_BY: &str = "-- Reads by: ";
const SAMPLE: &str = "-- Sample:";
const INDENT: &str = "--   ";

impl Question {
    pub(super) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let lines_after = |start: &'static str| {
            let lines = text.lines().skip_while(move |line| *line != start).skip(1);
            lines.map_while(|line| line.strip_prefix(INDENT))
        };
        let parameters = lines_after(PARAMETERS).map(|line| {
            let mut words = line
                .split("  ")
                .map(str::trim)
                .filter(|word| !word.is_empty());
            let mut next = || words.next().unwrap_or_default().to_owned();
            (next(), next())
        });
        let reads_by = text.lines().find_map(|line| line.strip_prefix(READS_BY));
        Self {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            words: text
                .lines()
                .next()
                .unwrap()
                .strip_prefix(COMMENT)
                .unwrap()
                .to_owned(),
            parameters: parameters.collect(),
            reads_by: reads_by
                .unwrap_or_else(|| panic!("{} does not say what it reads by", path.display()))
                .split(", ")
                .map(str::to_owned)
                .collect(),
            sample: lines_after(SAMPLE).collect::<Vec<_>>().join("\n"),
            text: text.clone(),
        }
    }

    /// What is behind the header.
    pub(super) fn statement(&self) -> &str {
        let header = self
            .text
            .split_inclusive('\n')
            .take_while(|line| line.starts_with("--"));
        self.text.split_at(header.map(str::len).sum()).1
    }

    /// The names in `{name:Type}`.
    pub(super) fn taken(&self) -> Vec<&str> {
        let places = self.statement().split('{').skip(1);
        places
            .filter_map(|place| Some(place.split_once(':')?.0))
            .collect()
    }

    /// The file with this answer as its sample.
    pub(super) fn with_sample(&self, answer: &str) -> String {
        let mut lines: Vec<String> = self
            .text
            .lines()
            .take_while(|line| line.starts_with("--") && *line != SAMPLE)
            .map(str::to_owned)
            .collect();
        if lines.last().is_some_and(|line| line != "--") {
            lines.push("--".to_owned());
        }
        lines.push(SAMPLE.to_owned());
        lines.extend(answer.lines().map(|line| format!("{INDENT}{line}")));
        lines.extend(
            self.text
                .lines()
                .skip_while(|line| line.starts_with("--"))
                .map(str::to_owned),
        );
        lines.join("\n") + "\n"
    }

    /// What `before` and the question give in this format, in the project of its name.
    pub(super) async fn ask(
        &self,
        stand: &Stand,
        before: &str,
        format: &str,
    ) -> Result<String, String> {
        let client = stand.client.clone();
        let client = client.with_setting("output_format_pretty_row_numbers", "0");
        let mut query = client.query_raw(&format!("{before}\n{}", self.text));
        for (name, value) in &self.parameters {
            let value = if name == "project" { &self.name } else { value };
            query = query.param(name, value);
        }
        let mut answer = query
            .fetch_bytes(format)
            .map_err(|error| error.to_string())?;
        let bytes = answer.collect().await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8(bytes.to_vec())
            .unwrap()
            .trim_end()
            .to_owned())
    }
}
