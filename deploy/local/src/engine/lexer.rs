//! Cuts SQL into tokens the way the engine's own lexer does.
//!
//! Promises: never fails, never panics, never loops; tokens cover the text in order. What is left open at the end (a
//! quote, a comment) reaches to the end, as it does for the engine, which then refuses the statement.

/// What a token is, as far as [`super::statement`] has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A bare word: a keyword or a name.
    Word,
    /// A quoted name.
    Name,
    /// `(`, `[` or `{`.
    Open,
    /// `)`, `]` or `}`.
    Close,
    /// `;`
    Semicolon,
    /// `.`
    Dot,
    /// A string, a number, an operator.
    Other,
}

/// A token and where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'sql> {
    pub(crate) kind: Kind,
    pub(crate) text: &'sql [u8],
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// How many brackets are open around it.
    pub(crate) depth: usize,
}

impl Token<'_> {
    /// Whether this is the keyword `word`, in any case.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word.as_bytes())
    }
}

/// The tokens of a text, without blanks and comments.
#[derive(Debug, Clone)]
pub(crate) struct Tokens<'sql> {
    sql: &'sql [u8],
    at: usize,
    depth: usize,
}

impl<'sql> Tokens<'sql> {
    pub(crate) fn new(sql: &'sql [u8]) -> Self {
        Self {
            sql,
            at: 0,
            depth: 0,
        }
    }

    fn rest(&self) -> &'sql [u8] {
        self.sql.get(self.at..).unwrap_or_default()
    }

    /// Steps over blanks and comments.
    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let length = match rest {
                [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, ..] => 1,
                [b'-', b'-', ..] | [b'/', b'/', ..] | [b'#', b' ' | b'!', ..] => {
                    rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())
                }
                [b'/', b'*', ..] => comment(rest),
                _ => return,
            };
            self.at += length;
        }
    }
}

impl<'sql> Iterator for Tokens<'sql> {
    type Item = Token<'sql>;

    fn next(&mut self) -> Option<Token<'sql>> {
        self.skip_blanks();
        let rest = self.rest();
        let &first = rest.first()?;
        let (kind, length) = match first {
            b'\'' => (Kind::Other, quoted(rest, b'\'')),
            b'"' | b'`' => (Kind::Name, quoted(rest, first)),
            b'(' | b'[' | b'{' => (Kind::Open, 1),
            b')' | b']' | b'}' => (Kind::Close, 1),
            b';' => (Kind::Semicolon, 1),
            b'.' => (Kind::Dot, 1),
            b'0'..=b'9' => (Kind::Other, word(rest)),
            b'$' => match heredoc(rest) {
                Some(length) => (Kind::Other, length),
                None => (Kind::Word, word(rest).max(1)),
            },
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => (Kind::Word, word(rest)),
            _ => (Kind::Other, 1),
        };
        if kind == Kind::Close {
            self.depth = self.depth.saturating_sub(1);
        }
        let start = self.at;
        self.at += length;
        let token = Token {
            kind,
            text: rest.get(..length).unwrap_or_default(),
            start,
            end: self.at,
            depth: self.depth,
        };
        if kind == Kind::Open {
            self.depth += 1;
        }
        Some(token)
    }
}

/// The length of a quoted text: a backslash escapes, a doubled quote is one.
fn quoted(text: &[u8], quote: u8) -> usize {
    let mut bytes = text.iter().enumerate().skip(1).peekable();
    while let Some((at, &byte)) = bytes.next() {
        if byte == b'\\' {
            bytes.next();
        } else if byte == quote && bytes.next_if(|(_, next)| **next == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

/// The length of a `/* … */` comment: they nest.
fn comment(text: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(pair) = text.get(at..at + 2) {
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of `$tag$ … $tag$`, if it is one.
fn heredoc(text: &[u8]) -> Option<usize> {
    let tag = text.iter().skip(1).position(|&b| b == b'$')? + 2;
    let (opening, body) = text.split_at_checked(tag)?;
    let at = body.windows(tag).position(|window| window == opening)?;
    Some(tag + at + tag)
}

fn word(text: &[u8]) -> usize {
    text.iter()
        .position(|b| !b.is_ascii_alphanumeric() && *b != b'_' && *b != b'$')
        .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        Tokens::new(sql.as_bytes())
            .filter_map(|token| std::str::from_utf8(token.text).ok())
            .collect()
    }

    #[test]
    fn what_is_quoted_is_one_token() {
        assert_eq!(
            texts(r"a 'it''s; \' -- no' `b``;`"),
            ["a", r"'it''s; \' -- no'", "`b``;`"]
        );
        assert_eq!(
            texts("select $x$; ' $$ $x$, 2"),
            ["select", "$x$; ' $$ $x$", ",", "2"]
        );
    }

    #[test]
    fn comments_are_no_tokens() {
        assert_eq!(
            texts("a -- ; x\nb /* ; /* ; */ ' */ c # d\n// e\nf #g"),
            ["a", "b", "c", "f", "#", "g"]
        );
    }

    proptest! {
        #[test]
        fn tokens_cover_the_text_in_order(sql in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut at = 0;
            for token in Tokens::new(&sql) {
                prop_assert!(token.start >= at && token.end > token.start && token.end <= sql.len());
                at = token.end;
            }
        }

        #[test]
        fn tokens_cover_odd_sql_in_order(sql in r#"([a-z;'"`$/*\\#() -]|--|/\*|\*/|\$a\$){0,60}"#) {
            let mut at = 0;
            for token in Tokens::new(sql.as_bytes()) {
                prop_assert!(token.start >= at && token.end > token.start && token.end <= sql.len());
                at = token.end;
            }
        }
    }
}
