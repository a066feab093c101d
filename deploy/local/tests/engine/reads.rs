//! Reading: every format the product asks for, parameters, settings.

use anyhow::{Context as _, ensure};
use clickhouse::Client;
use clickhouse::sql::Identifier;

use crate::stand::{Event, database, events, refused, stored, url};

async fn bytes(client: &Client, sql: &str, format: &str) -> anyhow::Result<Vec<u8>> {
    let mut cursor = client.query(sql).fetch_bytes(format)?;
    Ok(cursor.collect().await?.to_vec())
}

#[tokio::test]
async fn health_checks_of_a_server_say_ok() -> anyhow::Result<()> {
    for path in ["/", "/ping"] {
        let answer = reqwest::get(format!("{}{path}", url()?)).await?;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.text().await?, "Ok.\n");
    }
    Ok(())
}

#[tokio::test]
async fn rows_are_the_same_with_and_without_their_types_checked() -> anyhow::Result<()> {
    let client = database("checked").await?;
    events(&client).await?;
    client
        .query("INSERT INTO events VALUES (1, 'a;b'), (2, 'it''s\n\n')")
        .execute()
        .await?;
    let expected = [Event::new(1, "a;b"), Event::new(2, "it's\n\n")];
    for validation in [true, false] {
        let client = client.clone().with_validation(validation);
        assert_eq!(stored(&client).await?, expected);
    }
    Ok(())
}

#[tokio::test]
async fn a_million_rows_stream() -> anyhow::Result<()> {
    let client = database("million").await?;
    for validation in [true, false] {
        let mut cursor = client
            .clone()
            .with_validation(validation)
            .query("SELECT number, toString(number) FROM numbers(1000000)")
            .fetch::<(u64, String)>()?;
        let mut next = 0;
        while let Some((number, text)) = cursor.next().await? {
            ensure!(
                number == next && text == next.to_string(),
                "{number} {text}"
            );
            next += 1;
        }
        assert_eq!(next, 1_000_000);
    }
    Ok(())
}

#[tokio::test]
async fn no_rows_are_no_rows() -> anyhow::Result<()> {
    let client = database("no_rows").await?;
    let sql = "SELECT number FROM numbers(3) WHERE number > 5";
    for validation in [true, false] {
        let query = client.clone().with_validation(validation).query(sql);
        assert_eq!(query.fetch_optional::<u64>().await?, None);
    }
    assert_eq!(bytes(&client, sql, "CSVWithNames").await?, b"\"number\"\n");
    Ok(())
}

#[tokio::test]
async fn native_blocks_stream() -> anyhow::Result<()> {
    let client = database("native_read").await?;
    let mut cursor = client
        .query("SELECT number AS n, 'x' AS t FROM numbers(300000)")
        .fetch_native()?;
    let (mut blocks, mut sum) = (0, 0);
    while let Some(block) = cursor.next().await? {
        blocks += 1;
        for number in block
            .column_by_name("n")
            .context("no column")?
            .iter::<u64>()?
        {
            sum += number?;
        }
    }
    assert_eq!(sum, (0..300_000).sum::<u64>());
    ensure!(blocks > 1, "it came in one block");
    Ok(())
}

#[tokio::test]
async fn a_format_with_a_header_has_it_once_and_json_is_one_document() -> anyhow::Result<()> {
    let client = database("formats").await?;
    let sql = "SELECT number AS n FROM numbers(300000)";
    let csv = String::from_utf8(bytes(&client, sql, "CSVWithNames").await?)?;
    assert_eq!(csv.lines().filter(|line| *line == "\"n\"").count(), 1);
    assert_eq!(csv.lines().count(), 300_001);
    let json: serde_json::Value = serde_json::from_slice(&bytes(&client, sql, "JSON").await?)?;
    assert_eq!(json["rows"], 300_000);
    assert_eq!(json["data"].as_array().map(Vec::len), Some(300_000));
    Ok(())
}

#[tokio::test]
async fn the_format_in_the_statement_comes_before_the_default() -> anyhow::Result<()> {
    let client = database("own_format").await?;
    let json = bytes(&client, "SELECT 1 AS a FORMAT JSONEachRow", "CSV").await?;
    assert_eq!(json, b"{\"a\":1}\n");
    Ok(())
}

#[tokio::test]
async fn parameters_arrive_as_they_were_and_are_never_sql() -> anyhow::Result<()> {
    let client = database("parameters").await?;
    for text in [
        "",
        "'; DROP DATABASE parameters; --",
        "a\tb\\n\nc\r\n--",
        "ß 🦀 {x:String}",
        "\\'\"`",
    ] {
        let (by_name, bound): (String, String) = client
            .query("SELECT {text:String}, ?")
            .param("text", text)
            .bind(text)
            .fetch_one()
            .await?;
        assert_eq!((by_name.as_str(), bound.as_str()), (text, text));
    }
    let listed: Vec<String> = client
        .query("SELECT arrayJoin({list:Array(String)})")
        .param("list", vec!["a'b", "c,\\d"])
        .fetch_all()
        .await?;
    assert_eq!(listed, ["a'b", "c,\\d"]);
    Ok(())
}

#[tokio::test]
async fn parameters_may_name_things_and_stand_in_inserts() -> anyhow::Result<()> {
    let client = database("named").await?;
    events(&client).await?;
    client
        .query("INSERT INTO {table:Identifier} SELECT {id:UInt64}, {text:String}")
        .param("table", "events")
        .param("id", 7)
        .param("text", "it's")
        .execute()
        .await?;
    let found: u64 = client
        .query("SELECT count() FROM ? WHERE text = ?")
        .bind(Identifier("events"))
        .bind("it's")
        .fetch_one()
        .await?;
    assert_eq!(found, 1);
    Ok(())
}

#[tokio::test]
async fn settings_in_the_address_hold_for_their_request_only() -> anyhow::Result<()> {
    let client = database("settings").await?;
    let threads = "SELECT toString(getSetting('max_threads'))";
    let set = client.clone().with_setting("max_threads", "7");
    assert_eq!(set.query(threads).fetch_one::<String>().await?, "7");
    assert_ne!(client.query(threads).fetch_one::<String>().await?, "7");

    let slow = client.query("SELECT count() FROM numbers(1000000000000)");
    let slow = slow.with_setting("max_execution_time", "1");
    assert!(refused(slow.fetch_one::<u64>().await)?.starts_with("Code: 159."));

    let write = client.query("CREATE TABLE t (a UInt8) ENGINE = Memory");
    let write = write
        .with_setting("readonly", "1")
        .with_setting("max_threads", "1");
    assert!(refused(write.execute().await)?.starts_with("Code: 164."));

    let unknown = client
        .query("SELECT 1")
        .with_setting("no_such_setting", "1");
    assert!(refused(unknown.execute().await)?.starts_with("Code: 115."));
    Ok(())
}

#[tokio::test]
async fn the_database_in_the_address_is_the_current_one() -> anyhow::Result<()> {
    let client = database("current").await?;
    let current: String = client.query("SELECT currentDatabase()").fetch_one().await?;
    assert_eq!(current, "current");
    let lost = client.with_database("no_such`database");
    assert!(refused(lost.query("SELECT 1").execute().await)?.starts_with("Code: 81."));
    Ok(())
}

#[tokio::test]
async fn a_query_id_comes_back_and_marks_its_query() -> anyhow::Result<()> {
    let query = [
        (
            "query",
            "SELECT Settings['log_comment'] FROM system.processes",
        ),
        ("query_id", "my query"),
    ];
    let answer = reqwest::Client::new()
        .get(url()?)
        .query(&query)
        .send()
        .await?;
    assert_eq!(answer.headers()["x-clickhouse-query-id"], "my query");
    let running = answer.text().await?;
    ensure!(running.contains(" my query"), "{running}");
    Ok(())
}

#[tokio::test]
async fn an_answer_can_be_had_only_when_it_is_whole() -> anyhow::Result<()> {
    let query = [
        (
            "query",
            "SELECT throwIf(number = 900000) FROM numbers(1000000)",
        ),
        ("wait_end_of_query", "1"),
    ];
    let answer = reqwest::Client::new()
        .get(url()?)
        .query(&query)
        .send()
        .await?;
    assert_eq!(answer.headers()["x-clickhouse-exception-code"], "395");
    assert_eq!(answer.status(), 500);
    Ok(())
}
