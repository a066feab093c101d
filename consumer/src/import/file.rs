//! The file as it is read: by a thread of its own, a chunk ahead of what is published.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use tokio::sync::mpsc;

use super::form::Form;
use super::lines::{Line, Lines, MAX_LINE};
use super::report::Refused;
use super::{Format, Prepared};

/// A chunk is full with so many events, so many refused ones, or so many bytes of the file, each
/// rounded up to whole lines.
const CHUNK_EVENTS: usize = 2_000;
const CHUNK_BYTES: u64 = 8 << 20;

/// What some lines of the file hold.
pub(super) struct Chunk {
    /// Each with the number of its line.
    pub(super) events: Vec<(u64, Prepared)>,
    pub(super) refused: Vec<Refused>,
    pub(super) format: Format,
    /// The number of the line behind it.
    pub(super) next_line: u64,
    /// How many bytes of the file there are up to there.
    pub(super) bytes: u64,
}

/// What the reading thread tells.
pub(super) enum Told {
    Chunk(Chunk),
    /// All was read. What is missing in the file, if it can be known.
    End(Option<&'static str>),
    /// The file cannot be read on.
    Failed(io::Error),
}

/// Opens a file, or standard input for `-`; with its size, if it has one.
pub(super) fn open(file: &Path) -> io::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if file == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(file)?;
    let data = file.metadata()?;
    if data.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let size = data.is_file().then_some(data.len());
    Ok((Box::new(file), size))
}

/// Reads on a thread of its own, which ends with the process or when nobody listens.
pub(super) fn read(
    input: Box<dyn Read + Send>,
    form: Form,
    from_line: u64,
) -> io::Result<mpsc::Receiver<Told>> {
    let (told, receiver) = mpsc::channel(1);
    let read = move || {
        let mut chunks = Chunks {
            lines: Lines::of(BufReader::with_capacity(1 << 16, input)),
            form,
            from_line,
        };
        let last = loop {
            match chunks.next() {
                Ok(Some(chunk)) => {
                    if told.blocking_send(Told::Chunk(chunk)).is_err() {
                        return;
                    }
                }
                Ok(None) => break Told::End(chunks.form.cut()),
                Err(error) => break Told::Failed(error),
            }
        };
        // Nobody may be listening.
        told.blocking_send(last).ok();
    };
    std::thread::Builder::new()
        .name("import".to_owned())
        .spawn(read)?;
    Ok(receiver)
}

/// The chunks of a file.
struct Chunks<R> {
    lines: Lines<BufReader<R>>,
    form: Form,
    from_line: u64,
}

impl<R: Read> Chunks<R> {
    fn next(&mut self) -> io::Result<Option<Chunk>> {
        let (mut events, mut refused) = (Vec::new(), Vec::new());
        let before = self.lines.bytes();
        loop {
            let line = match self.lines.next()? {
                None => break,
                Some(Line::Whole(line)) => self.form.events(line),
                Some(Line::TooLong) => Err(format!(
                    "longer than {MAX_LINE} bytes; `jq -c '.[]'` writes the parts of an array as lines"
                )),
            };
            let number = self.lines.number();
            // Read all the same: the format, and the number of an event, may follow from it.
            if number >= self.from_line {
                take(number, line, &mut events, &mut refused);
            }
            let is_full = events.len() >= CHUNK_EVENTS || refused.len() >= CHUNK_EVENTS;
            if is_full || self.lines.bytes().saturating_sub(before) >= CHUNK_BYTES {
                break;
            }
        }
        let bytes = self.lines.bytes();
        Ok((bytes > before).then(|| Chunk {
            events,
            refused,
            format: self.form.format(),
            next_line: self.lines.number().saturating_add(1),
            bytes,
        }))
    }
}

/// Sorts what a line holds.
fn take(
    number: u64,
    line: Result<Vec<Result<Prepared, String>>, String>,
    events: &mut Vec<(u64, Prepared)>,
    refused: &mut Vec<Refused>,
) {
    let of_line = match line {
        Ok(of_line) => of_line,
        Err(reason) => {
            return refused.push(Refused {
                line: number,
                event: None,
                reason,
            });
        }
    };
    let is_one = of_line.len() == 1;
    for (place, event) in (1..).zip(of_line) {
        match event {
            Ok(event) => events.push((number, event)),
            Err(reason) => refused.push(Refused {
                line: number,
                event: (!is_one).then_some(place),
                reason,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use audit_producer::Redaction;

    fn chunks(text: &str, from_line: u64) -> Vec<Chunk> {
        let form = Form::new(Format::Auto, "copy".parse().unwrap(), Redaction::default());
        let lines = Lines::of(BufReader::new(text.as_bytes()));
        let mut chunks = Chunks {
            lines,
            form,
            from_line,
        };
        std::iter::from_fn(|| chunks.next().unwrap()).collect()
    }

    #[test]
    fn what_is_refused_is_named_by_line_and_place() {
        let event = r#"{"eventType":"t","createdAt":1}"#;
        let text = format!("{event}\nno\n\n{{\"events\":[{event},{{}},5]}}\n{{}}");
        let chunks = chunks(&text, 1);
        let refused: Vec<String> = chunks[0].refused.iter().map(ToString::to_string).collect();
        assert_eq!(
            refused,
            [
                "line 2: not JSON: expected ident",
                "line 4, event 2: createdAt is missing",
                "line 4, event 3: not a JSON object",
                "line 5: createdAt is missing",
            ]
        );
        let lines: Vec<u64> = chunks[0].events.iter().map(|(line, _)| *line).collect();
        assert_eq!(
            (lines.as_slice(), chunks[0].next_line),
            ([1, 4].as_slice(), 6)
        );
    }

    #[test]
    fn a_file_read_from_a_line_on_gives_the_same_events() {
        let event = "{\"eventType\":\"t\",\"createdAt\":1}\n";
        let text = event.repeat(5_000);
        let ids = |from_line| -> Vec<_> {
            let chunks = chunks(&text, from_line).into_iter();
            chunks
                .flat_map(|chunk| chunk.events)
                .map(|(line, event)| (line, event.id.id))
                .collect()
        };
        let all = ids(1);
        assert_eq!(all.len(), 5_000);
        assert_eq!(all[4_321..], ids(4_322));
        let distinct: std::collections::HashSet<_> = all.iter().map(|(_, id)| id).collect();
        assert_eq!(distinct.len(), 5_000);
    }

    #[test]
    fn chunks_are_bounded_and_end_with_a_line() {
        let event = "{\"eventType\":\"t\",\"createdAt\":1}\n";
        let ends: Vec<u64> = chunks(&event.repeat(4_500), 1)
            .iter()
            .map(|chunk| chunk.next_line)
            .collect();
        assert_eq!(ends, [2_001, 4_001, 4_501]);
        let refused: Vec<usize> = chunks(&"no\n".repeat(4_500), 1)
            .iter()
            .map(|chunk| chunk.refused.len())
            .collect();
        assert_eq!(refused, [2_000, 2_000, 500]);
    }
}
