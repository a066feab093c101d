//! The lines of a file, in bounded memory.

use std::io::{self, BufRead, Read};

/// Longest line, in bytes: a page of 100 events of the largest size fits.
pub(super) const MAX_LINE: usize = 32 << 20;

/// Begins a text file that some editors write; it is no part of the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file that is read line by line.
pub(super) struct Lines<R> {
    input: R,
    longest: usize,
    line: Vec<u8>,
    number: u64,
    bytes: u64,
}

/// One line, without its end.
pub(super) enum Line<'a> {
    Whole(&'a [u8]),
    /// It has more than [`MAX_LINE`] bytes.
    TooLong,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn of(input: R) -> Self {
        Self::up_to(MAX_LINE, input)
    }

    fn up_to(longest: usize, input: R) -> Self {
        Self {
            input,
            longest,
            line: Vec::new(),
            number: 0,
            bytes: 0,
        }
    }

    /// The number of the line that was read last; from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// How many bytes were read.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next line; `None` at the end. The last one may lack its end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let most = u64::try_from(self.longest).unwrap_or(u64::MAX);
        let mut read = (&mut self.input)
            .take(most.saturating_add(1))
            .read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        self.number = self.number.saturating_add(1);
        let too_long = self.line.len() > self.longest && !self.line.ends_with(b"\n");
        if too_long {
            self.line = Vec::new();
            read = read.saturating_add(self.input.skip_until(b'\n')?);
        }
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        if too_long {
            return Ok(Some(Line::TooLong));
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let line = match line.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) if self.number == 1 => rest,
            _ => line,
        };
        Ok(Some(Line::Whole(line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(longest: usize, text: &[u8]) -> Vec<Option<Vec<u8>>> {
        let mut lines = Lines::up_to(longest, text);
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push(match line {
                Line::Whole(line) => Some(line.to_vec()),
                Line::TooLong => None,
            });
        }
        assert_eq!(lines.number(), u64::try_from(found.len()).unwrap());
        assert_eq!(lines.bytes(), u64::try_from(text.len()).unwrap());
        found
    }

    #[test]
    fn a_line_that_is_too_long_costs_no_neighbour() {
        let whole = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(
            lines(4, b"abcd\nabcde\n\nabcdefghijkl\nab"),
            [whole("abcd"), None, whole(""), None, whole("ab")]
        );
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        assert_eq!(lines(9, b"\xef\xbb\xbf{}\n")[0], Some(b"{}".to_vec()));
    }

    proptest! {
        #[test]
        fn all_lines_of_arbitrary_bytes_are_found(text: Vec<u8>, longest in 1_usize..9) {
            let text = [b"x".as_slice(), &text].concat();
            let wanted = text.strip_suffix(b"\n").unwrap_or(&text).split(|byte| *byte == b'\n');
            let wanted: Vec<_> =
                wanted.map(|line| (line.len() <= longest).then(|| line.to_vec())).collect();
            prop_assert_eq!(lines(longest, &text), wanted);
        }
    }
}
