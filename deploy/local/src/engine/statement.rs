//! What a statement is, as far as it decides which way through the library it takes.
//!
//! The library has three: a query that streams, an insert that takes rows, and anything else. It also is a *client*: it
//! runs several statements in one text, reads and writes files of the machine (`INTO OUTFILE`, `FROM INFILE`, `\i`) and
//! has commands of its own (`exit`). A server has none of that, so all of it is refused here.
//!
//! Everything else about a statement is the engine's to judge.

use super::exception::Exception;
use super::lexer::{Kind, Token, Tokens};

/// A statement, sorted by its way through the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Statement {
    /// A query; its own `FORMAT`, if it has one.
    Query(Option<String>),
    /// An insert followed by its rows.
    Insert(Insert),
    /// All else: no rows go in; its own `FORMAT`, if it has one.
    Command(Option<String>),
}

/// Where the parts of an insert stand in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Insert {
    /// The statement ends here, before `FORMAT` or `VALUES`.
    pub(crate) head_end: usize,
    /// The format of the rows.
    pub(crate) format: String,
    /// The rows begin here.
    pub(crate) rows_start: usize,
}

impl Statement {
    /// Sorts a complete statement.
    pub(crate) fn read(sql: &[u8]) -> Result<Self, Exception> {
        let mut tokens = Tokens::new(sql);
        let Some(first) = tokens.next() else {
            return Err(Exception::syntax("Empty query"));
        };
        if first.is("INSERT") {
            if let Some(insert) = Insert::find(sql)? {
                return Ok(Self::Insert(insert));
            }
        } else if first.kind != Kind::Word && first.text != b"(" {
            return Err(Exception::syntax("failed at position 1"));
        }
        let clauses = Clauses::read(tokens)?;
        if clauses.tokens == 0 {
            // `exit` and its like: words the library takes for commands to itself.
            return Err(Exception::syntax("failed at position 1"));
        }
        let reads = first.text == b"(" || ["SELECT", "WITH", "FROM"].iter().any(|w| first.is(w));
        if reads && !clauses.writes {
            Ok(Self::Query(clauses.format))
        } else {
            Ok(Self::Command(clauses.format))
        }
    }

    /// Whether this statement, whose text is `sql`, is one that only reads. To all others that the engine's `readonly`
    /// would let through belongs `KILL QUERY`, as all queries here are of one user.
    pub(crate) fn only_reads(&self, sql: &[u8]) -> bool {
        let shows = |first: Token<'_>| {
            ["SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS"]
                .iter()
                .any(|word| first.is(word))
        };
        match self {
            Self::Query(_) => true,
            Self::Insert(_) => false,
            Self::Command(_) => Tokens::new(sql).next().is_some_and(shows),
        }
    }
}

/// What the tokens after the first say.
#[derive(Default)]
struct Clauses {
    tokens: usize,
    format: Option<String>,
    /// `WITH … INSERT INTO … SELECT`.
    writes: bool,
}

impl Clauses {
    fn read(tokens: Tokens<'_>) -> Result<Self, Exception> {
        let mut clauses = Self::default();
        let mut tokens = tokens.peekable();
        while let Some(token) = tokens.next() {
            let next = tokens.peek();
            if token.kind == Kind::Semicolon && token.depth == 0 {
                if next.is_some_and(|next| next.kind != Kind::Semicolon) {
                    return Err(Exception::syntax("Multi-statements are not allowed"));
                }
                continue;
            }
            clauses.tokens += 1;
            if token.is("INTO") && next.is_some_and(|next| next.is("OUTFILE")) {
                return Err(Exception::outfile());
            }
            if token.is("FROM") && next.is_some_and(|next| next.is("INFILE")) {
                return Err(Exception::infile());
            }
            if token.depth > 0 {
                continue;
            }
            if token.is("INSERT") {
                clauses.writes = true;
            }
            if token.is("FORMAT")
                && let Some(format) = next.and_then(format_name)
            {
                // Only as the last clause: `format` is also a good name for a column.
                let mut after = tokens.clone().skip(1);
                clauses.format = match after.next() {
                    None => Some(format),
                    Some(t) if t.kind == Kind::Semicolon || t.is("SETTINGS") => Some(format),
                    Some(_) => None,
                };
            }
        }
        Ok(clauses)
    }
}

impl Insert {
    /// Finds where the rows of an insert begin, without having to see them. `None`: it is no insert, or one that brings
    /// no rows, or not enough of it is here to say.
    pub(crate) fn find(sql: &[u8]) -> Result<Option<Self>, Exception> {
        let mut tokens = Tokens::new(sql).peekable();
        if !tokens.next().is_some_and(|first| first.is("INSERT")) {
            return Ok(None);
        }
        for word in ["INTO", "TABLE", "FUNCTION"] {
            tokens.next_if(|token| token.is(word));
        }
        // The target may be called anything, `values` and `format` too, and may be a parameter: `{table:Identifier}`.
        loop {
            if tokens.next().is_some_and(|name| name.text == b"{") {
                while tokens.next_if(|token| token.depth > 0).is_some() {}
                tokens.next();
            }
            if tokens.next_if(|token| token.kind == Kind::Dot).is_none() {
                break;
            }
        }
        while let Some(token) = tokens.next() {
            let next = tokens.peek();
            if token.depth > 0 {
                continue;
            }
            if token.is("FROM") && next.is_some_and(|next| next.is("INFILE")) {
                return Err(Exception::infile());
            }
            let selects = |token: &Token<'_>| {
                ["SELECT", "WITH", "FROM", "WATCH"]
                    .iter()
                    .any(|word| token.is(word))
            };
            if selects(&token) || token.kind == Kind::Open && next.is_some_and(selects) {
                return Ok(None);
            }
            if token.kind == Kind::Semicolon {
                return Ok(None);
            }
            if token.is("VALUES") {
                return Ok(Some(Self {
                    head_end: token.start,
                    format: "Values".to_owned(),
                    rows_start: token.end,
                }));
            }
            if token.is("FORMAT")
                && let Some((format, end)) =
                    next.and_then(|next| Some((format_name(next)?, next.end)))
            {
                return Ok(Some(Self {
                    head_end: token.start,
                    format,
                    rows_start: rows_start(sql, end)?,
                }));
            }
        }
        Ok(None)
    }
}

/// The rows begin after the first newline, if only blanks are before it, else after the blanks.
fn rows_start(sql: &[u8], end_of_format: usize) -> Result<usize, Exception> {
    let rest = sql.get(end_of_format..).unwrap_or_default();
    if rest.first() == Some(&b';') {
        return Err(Exception::syntax(
            "You have excessive ';' symbol before data for INSERT",
        ));
    }
    let blanks = rest
        .iter()
        .take_while(|b| matches!(b, b' ' | b'\t' | 0x0c))
        .count();
    let newline = match rest.get(blanks..) {
        Some([b'\r', b'\n', ..]) => 2,
        Some([b'\r' | b'\n', ..]) => 1,
        _ => 0,
    };
    Ok(end_of_format + blanks + newline)
}

fn format_name(token: &Token<'_>) -> Option<String> {
    let text = std::str::from_utf8(token.text).ok()?;
    match token.kind {
        Kind::Word => Some(text.to_owned()),
        Kind::Name => Some(text.trim_matches(['`', '"']).to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(format: &str) -> Statement {
        Statement::Query(Some(format.to_owned()).filter(|f| !f.is_empty()))
    }

    /// The head, the format and the rows of an insert.
    fn insert(sql: &str) -> Option<(&str, String, &str)> {
        let found = Insert::find(sql.as_bytes()).ok()??;
        Some((
            sql.get(..found.head_end)?,
            found.format,
            sql.get(found.rows_start..)?,
        ))
    }

    #[test]
    fn queries_stream_and_all_else_does_not() {
        for sql in [
            "SELECT 1",
            "with 1 as x select x",
            "FROM t SELECT *",
            "(SELECT 1) UNION ALL (SELECT 2)",
            "/* a */ SELECT 1;",
        ] {
            assert_eq!(Statement::read(sql.as_bytes()), Ok(query("")), "{sql}");
        }
        for sql in [
            "SHOW TABLES",
            "CREATE TABLE t (x UInt8) ENGINE = Memory",
            "INSERT INTO t SELECT 1",
            "INSERT INTO t (a) (SELECT 1)",
            "WITH 1 AS x INSERT INTO t SELECT x",
            "EXPLAIN SELECT 1",
        ] {
            assert_eq!(
                Statement::read(sql.as_bytes()),
                Ok(Statement::Command(None)),
                "{sql}"
            );
        }
    }

    #[test]
    fn only_what_reads_is_said_to_only_read() {
        for (sql, reads) in [
            ("SELECT 1", true),
            ("/* a */ show TABLES", true),
            ("EXPLAIN SELECT 1", true),
            ("KILL QUERY WHERE 1", false),
            ("SYSTEM STOP MERGES", false),
            ("SET readonly = 0", false),
            ("WITH 1 AS x INSERT INTO t SELECT x", false),
            ("INSERT INTO t VALUES (1)", false),
        ] {
            let statement = Statement::read(sql.as_bytes()).unwrap();
            assert_eq!(statement.only_reads(sql.as_bytes()), reads, "{sql}");
        }
    }

    #[test]
    fn only_the_last_clause_names_the_format() {
        for (sql, format) in [
            ("SELECT 1 FORMAT JSON", "JSON"),
            (
                "SELECT 1 format JSONEachRow SETTINGS max_threads = 1;",
                "JSONEachRow",
            ),
            ("SELECT format FROM t", ""),
            ("SELECT format x FROM t", ""),
            ("SELECT ' FORMAT CSV'", ""),
            ("SELECT (SELECT 1 FORMAT CSV)", ""),
        ] {
            assert_eq!(Statement::read(sql.as_bytes()), Ok(query(format)), "{sql}");
        }
    }

    #[test]
    fn the_rows_of_an_insert_are_found() {
        let rows = |head, format: &str, rows| Some((head, format.to_owned(), rows));
        assert_eq!(
            insert("INSERT INTO t(a, `b c`) FORMAT Native\n\x01\x02"),
            rows("INSERT INTO t(a, `b c`) ", "Native", "\x01\x02")
        );
        assert_eq!(
            insert("insert into d.t values (1), (';')"),
            rows("insert into d.t ", "Values", " (1), (';')")
        );
        assert_eq!(
            insert("INSERT INTO values SETTINGS a = 1, b='FORMAT x' FORMAT TSV \r\n\n1"),
            rows(
                "INSERT INTO values SETTINGS a = 1, b='FORMAT x' ",
                "TSV",
                "\n1"
            )
        );
        assert_eq!(
            insert("INSERT INTO {t:Identifier}.{u:Identifier} FORMAT CSV\n"),
            rows("INSERT INTO {t:Identifier}.{u:Identifier} ", "CSV", "")
        );
        assert_eq!(insert("INSERT INTO t SELECT 1 FORMAT CSV"), None);
        assert_eq!(insert("INSERT INTO t (a)"), None);
    }

    #[test]
    fn several_statements_are_refused() {
        for sql in [
            "SELECT 1; SELECT 2",
            "CREATE DATABASE a; DROP DATABASE b",
            "SELECT 1;;x",
            "INSERT INTO t SELECT 1; SELECT 2",
        ] {
            assert_eq!(
                Statement::read(sql.as_bytes()),
                Err(Exception::syntax("Multi-statements are not allowed")),
                "{sql}"
            );
        }
        assert!(Statement::read(b"SELECT ';' AS `;` -- ;\n ;; ").is_ok());
    }

    #[test]
    fn files_and_commands_of_a_client_are_refused() {
        for sql in [
            "SELECT 1 INTO OUTFILE 'x'",
            "SELECT 1 into/**/outfile 'x'",
            "(SELECT 1 INTO OUTFILE 'x')",
            "INSERT INTO t FROM INFILE 'x' FORMAT CSV",
            "INSERT INTO t (a) FROM INFILE 'x'",
            "\\i /etc/passwd",
            "exit",
            "quit;",
            "",
            "-- nothing",
            ";",
        ] {
            assert!(Statement::read(sql.as_bytes()).is_err(), "{sql}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(sql in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Statement::Insert(insert)) = Statement::read(&sql) {
                prop_assert!(insert.head_end <= insert.rows_start && insert.rows_start <= sql.len());
            }
        }

        #[test]
        fn reading_odd_statements_never_panics(
            sql in r#"(INSERT|INTO|t|\.|\(|\)|\{|\}|FORMAT|VALUES|SELECT|FROM|INFILE|;|'|"|`|--|/\*|\*/|\$|[ \n\\a]){0,30}"#,
        ) {
            if let Ok(Statement::Insert(insert)) = Statement::read(sql.as_bytes()) {
                prop_assert!(insert.head_end <= insert.rows_start && insert.rows_start <= sql.len());
            }
        }

        #[test]
        fn an_insert_sent_by_the_client_is_always_found(
            table in "[a-z]{1,8}", rows in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let head = format!("INSERT INTO `{table}`(`x`) FORMAT RowBinary\n");
            let sql = [head.as_bytes(), &rows].concat();
            let found = Insert::find(&sql).ok().flatten();
            prop_assert_eq!(found.map(|insert| insert.rows_start), Some(head.len()));
        }
    }
}
