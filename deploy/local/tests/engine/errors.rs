//! Errors: told the way a server tells them, and what is not served is refused in words.

use std::time::Duration;

use anyhow::ensure;

use crate::stand::{START, data, database, engine, refused, url, wait_until};

async fn post(
    query: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> anyhow::Result<(u16, String, String)> {
    let answer = reqwest::Client::new()
        .post(url()?)
        .query(query)
        .body(body)
        .send()
        .await?;
    let status = answer.status().as_u16();
    let code = answer.headers().get("x-clickhouse-exception-code");
    let code = code
        .and_then(|code| code.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    Ok((status, code, answer.text().await?))
}

#[tokio::test]
async fn an_error_has_a_status_a_number_and_a_text() -> anyhow::Result<()> {
    for (sql, status, code) in [
        ("SELECT nope", 404, "47"),
        ("SELECT * FROM no_such_table", 404, "60"),
        ("SELEC 1", 400, "62"),
        ("SELECT throwIf(1)", 500, "395"),
        ("", 400, "62"),
    ] {
        let (answered, number, text) = post(&[], sql).await?;
        assert_eq!((answered, number.as_str()), (status, code), "{sql}");
        ensure!(
            text.starts_with(&format!("Code: {code}. DB::Exception: ")),
            "{text}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn several_statements_are_refused_and_none_is_run() -> anyhow::Result<()> {
    let client = database("several").await?;
    for sql in [
        "CREATE TABLE a (x UInt8) ENGINE = Memory; SELECT 1",
        "CREATE TABLE a (x UInt8) ENGINE = Memory; nonsense",
    ] {
        let error = refused(client.query(sql).execute().await)?;
        ensure!(
            error.contains("Multi-statements are not allowed"),
            "{error}"
        );
    }
    let tables: Vec<String> = client.query("SHOW TABLES").fetch_all().await?;
    assert_eq!(tables, [""; 0]);
    client.query("SELECT 1; -- ;").execute().await?;
    Ok(())
}

#[tokio::test]
async fn an_error_after_the_first_rows_reaches_the_reader() -> anyhow::Result<()> {
    let client = database("half_way").await?;
    let mut cursor = client
        .query("SELECT number, throwIf(number = 3000000) FROM numbers(4000000) SETTINGS max_block_size = 65536")
        .fetch::<(u64, u8)>()?;
    let mut rows = 0;
    let error = loop {
        match cursor.next().await {
            Ok(Some(_)) => rows += 1,
            Ok(None) => anyhow::bail!("it ended well after {rows} rows"),
            Err(error) => break refused::<()>(Err(error))?,
        }
    };
    ensure!(
        rows > 0 && error.starts_with("Code: 395."),
        "{rows} rows, then {error}"
    );
    Ok(())
}

#[tokio::test]
async fn compressed_bodies_are_refused_in_words() -> anyhow::Result<()> {
    for query in [[("decompress", "1")], [("compress", "1")]] {
        let (status, code, text) = post(&query, "SELECT 1").await?;
        assert_eq!((status, code.as_str()), (501, "48"));
        ensure!(
            text.contains("turn compression off in the client"),
            "{text}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_is_not_served_is_refused_in_words() -> anyhow::Result<()> {
    for query in [
        [("session_id", "a")],
        [("role", "a")],
        [("client_protocol_version", "54492")],
    ] {
        let (status, code, _) = post(&query, "SELECT 1").await?;
        assert_eq!((status, code.as_str()), (501, "48"), "{query:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_statement_may_have_a_mebibyte() -> anyhow::Result<()> {
    let long = |length| format!("SELECT length('{}')", "x".repeat(length));
    let size = [("max_query_size", "10000000")];
    assert_eq!(post(&size, long(1_000_000)).await?.2, "1000000\n");
    let (status, code, text) = post(&size, long(1_100_000)).await?;
    assert_eq!((status, code.as_str()), (400, "62"), "{text}");
    Ok(())
}

#[tokio::test]
async fn files_addresses_and_other_servers_are_out_of_reach() -> anyhow::Result<()> {
    let client = database("out_of_reach").await?;
    for sql in [
        "SELECT * FROM file('/etc/hostname', 'LineAsString', 'line String')",
        "SELECT * FROM default.`/etc/hostname`",
        "DESCRIBE TABLE default.`/etc/hostname`",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString', 'line String')",
        "SELECT * FROM remote('127.0.0.1', 'system.one')",
        "INSERT INTO FUNCTION file('/tmp/never', 'CSV', 'a UInt8') SELECT 1",
        "CREATE TABLE f (line String) ENGINE = File(LineAsString, '/etc/hostname')",
        "CREATE TABLE u (line String) ENGINE = URL('http://127.0.0.1:1/', LineAsString)",
        "CREATE DATABASE root ENGINE = Filesystem('/')",
        "CREATE DICTIONARY d (k UInt64, v String) PRIMARY KEY k SOURCE(FILE(path '/etc/hostname' format 'TSV')) LAYOUT(FLAT()) LIFETIME(0)",
        "CREATE USER somebody",
        "SYSTEM SHUTDOWN",
        "BACKUP DATABASE out_of_reach TO File('/tmp/never')",
    ] {
        let error = refused(client.query(sql).execute().await)?;
        ensure!(error.starts_with("Code: 497."), "{sql}: {error}");
    }
    for (sql, code) in [
        ("SELECT 1 INTO OUTFILE '/tmp/never'", "Code: 358."),
        (
            "INSERT INTO t FROM INFILE '/etc/hostname' FORMAT CSV",
            "Code: 1.",
        ),
        ("\\i /etc/hostname", "Code: 62."),
        ("exit", "Code: 62."),
    ] {
        let error = refused(client.query(sql).execute().await)?;
        ensure!(error.starts_with(code), "{sql}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn what_migrations_and_operators_need_is_within_reach() -> anyhow::Result<()> {
    let client = database("migrated").await?;
    for sql in [
        "CREATE TABLE t (k UInt64, v String, at DateTime64(3)) ENGINE = MergeTree ORDER BY k PARTITION BY toYYYYMM(at)",
        "ALTER TABLE t ADD COLUMN w String COMMENT 'more'",
        "ALTER TABLE t ADD INDEX i w TYPE bloom_filter",
        "ALTER TABLE t ADD PROJECTION p (SELECT k ORDER BY v)",
        "ALTER TABLE t MODIFY TTL toDateTime(at) + INTERVAL 1 YEAR",
        "CREATE VIEW view AS SELECT * FROM t",
        "CREATE MATERIALIZED VIEW kept ENGINE = MergeTree ORDER BY k AS SELECT k FROM t",
        "CREATE TABLE latest (k UInt64, n UInt64) ENGINE = ReplacingMergeTree(n) ORDER BY k",
        "INSERT INTO t (k, v, at) SELECT number, 'v', now64(3) FROM numbers(10)",
        "ALTER TABLE t UPDATE w = 'x' WHERE k = 1",
        "ALTER TABLE t DELETE WHERE k = 2",
        "OPTIMIZE TABLE t FINAL",
        "RENAME TABLE latest TO newest",
        "SYSTEM STOP MERGES t",
        "SYSTEM START MERGES t",
        "CHECK TABLE t",
        "EXPLAIN indexes = 1 SELECT * FROM t WHERE k = 3",
        "ALTER TABLE t DROP PARTITION ID '197001'",
        "TRUNCATE TABLE t",
        "DROP TABLE kept SYNC",
        "DROP DATABASE migrated SYNC",
    ] {
        let done = client.query(sql).execute().await;
        ensure!(done.is_ok(), "{sql}: {done:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_query_is_killed_when_its_client_leaves() -> anyhow::Result<()> {
    let client = database("leaving").await?;
    // Before the first rows, in a format that is made as a whole, and between two pieces.
    for (name, sql) in [
        ("early", "SELECT count() FROM numbers(100000000000000)"),
        (
            "whole",
            "SELECT count() FROM numbers(100000000000000) FORMAT JSON",
        ),
        (
            "between",
            "SELECT sleepEachRow(0.1) FROM numbers(100000) SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0",
        ),
    ] {
        let http = reqwest::Client::new();
        let query = [
            ("log_comment", name),
            ("http_headers_progress_interval_ms", "100"),
        ];
        let asking = http.post(url()?).query(&query).body(sql).send();
        let asking = tokio::time::timeout(Duration::from_secs(100), asking);
        let running = format!(
            "SELECT count() FROM system.processes WHERE Settings['log_comment'] LIKE '% {name}'"
        );
        let asking = async move {
            let answer = asking.await??;
            // Its head may come; the end of its body never does.
            answer.bytes().await?;
            anyhow::Ok(())
        };
        tokio::select! {
            ended = asking => anyhow::bail!("{name} was not to end: {ended:?}"),
            started = wait_until(&client, &running, 1) => started?,
        }
        wait_until(&client, &running, 0).await?;
    }
    Ok(())
}

#[tokio::test]
async fn more_statements_than_the_limit_wait_for_their_turn() -> anyhow::Result<()> {
    let folder = data("one_at_a_time")?;
    let mut engine = engine(folder.path(), &["--max-queries", "1"])?;
    let url = engine.ready(START).await?;
    let client = clickhouse::Client::default().with_url(url);
    let ask = |number: u64| {
        let query = client
            .query("SELECT {number:UInt64} + sleep(0.05)")
            .param("number", number);
        async move { query.fetch_one::<u64>().await }
    };
    let answers = futures_util::future::join_all((0..10).map(ask)).await;
    for (number, answer) in (0..).zip(answers) {
        assert_eq!(answer?, number);
    }
    Ok(())
}
