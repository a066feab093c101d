//! Writing: what was acknowledged is stored, once and as it was; what was not is not.

use anyhow::ensure;
use clickhouse::Client;
use clickhouse::native::Block;
use clickhouse::native::builder::BlockBuilder;

use crate::stand::{
    Event, START, data, database, database_at, engine, events, refused, stored, url, wait_until,
};

/// What text formats and shells trip over.
const ODD: [&str; 6] = [
    "\0",
    "a\n\nb\r\n",
    "; DROP TABLE events;",
    "'\"`\\",
    "\u{1f980}\t",
    "",
];

fn block(events: &[Event]) -> anyhow::Result<Block> {
    let mut block = BlockBuilder::new();
    block
        .upsert_column::<u64>("id")?
        .add_all(events.iter().map(|event| event.id))
        .map_err(anyhow::Error::from_boxed)?;
    block
        .upsert_column::<&str>("text")?
        .add_all(events.iter().map(|event| event.text.as_str()))
        .map_err(anyhow::Error::from_boxed)?;
    Ok(block.build()?)
}

async fn insert_native(
    client: &Client,
    token: &str,
    events: &[Event],
) -> anyhow::Result<clickhouse::error::Result<()>> {
    let mut insert = client
        .insert_native("events")
        .with_setting("async_insert", "0")
        .with_setting("insert_deduplication_token", token);
    if let Err(error) = insert.write(&block(events)?).await {
        return Ok(Err(error));
    }
    Ok(insert.end().await)
}

fn odd_events() -> Vec<Event> {
    (0..)
        .zip(ODD)
        .map(|(id, text)| Event::new(id, text))
        .collect()
}

#[tokio::test]
async fn any_bytes_survive_a_native_insert() -> anyhow::Result<()> {
    let client = database("native_bytes").await?;
    events(&client).await?;
    insert_native(&client, "a", &odd_events()).await??;
    assert_eq!(stored(&client).await?, odd_events());
    Ok(())
}

#[tokio::test]
async fn any_bytes_survive_an_insert_of_rows() -> anyhow::Result<()> {
    for validation in [true, false] {
        let client = database(&format!("row_bytes_{validation}")).await?;
        let client = client.with_validation(validation);
        events(&client).await?;
        let mut insert = client.insert::<Event>("events").await?;
        for event in odd_events() {
            insert.write(&event).await?;
        }
        insert.end().await?;
        assert_eq!(stored(&client).await?, odd_events());
    }
    Ok(())
}

#[tokio::test]
async fn a_million_rows_go_in_as_one_part() -> anyhow::Result<()> {
    let client = database("million_in").await?;
    events(&client).await?;
    let mut insert = client.insert::<Event>("events").await?;
    for id in 1_000_000..2_000_000 {
        insert.write(&Event::new(id, "x")).await?;
    }
    insert.end().await?;
    let (rows, parts): (u64, u64) = client
        .query("SELECT sum(rows), count() FROM system.parts WHERE database = currentDatabase() AND active")
        .fetch_one()
        .await?;
    assert_eq!((rows, parts), (1_000_000, 1));
    Ok(())
}

#[tokio::test]
async fn a_dropped_insert_stores_nothing() -> anyhow::Result<()> {
    let client = database("dropped").await?;
    events(&client).await?;
    let mut insert = client.insert_native("events");
    insert.write(&block(&odd_events())?).await?;
    let running = "SELECT count() FROM system.processes WHERE current_database = 'dropped' AND query ILIKE 'INSERT%'";
    wait_until(&client, running, 1).await?;
    drop(insert);
    wait_until(&client, running, 0).await?;
    assert_eq!(stored(&client).await?, []);
    // It is not in the way of the next.
    insert_native(&client, "b", &[Event::new(99, "after")]).await??;
    assert_eq!(stored(&client).await?, [Event::new(99, "after")]);
    Ok(())
}

#[tokio::test]
async fn the_same_token_stores_once() -> anyhow::Result<()> {
    let client = database("tokens").await?;
    events(&client).await?;
    for _ in 0..2 {
        insert_native(&client, "one", &[Event::new(1, "a")]).await??;
    }
    // The token names the rows, whatever they are.
    insert_native(&client, "one", &[Event::new(2, "b")]).await??;
    insert_native(&client, "two", &[Event::new(1, "a")]).await??;
    assert_eq!(
        stored(&client).await?,
        [Event::new(1, "a"), Event::new(1, "a")]
    );
    Ok(())
}

#[tokio::test]
async fn a_violated_constraint_stores_nothing_and_burns_no_token() -> anyhow::Result<()> {
    let client = database("constraint").await?;
    events(&client).await?;
    let both = [Event::new(1, "a"), Event::new(13, "b")];
    let error = refused(insert_native(&client, "t", &both).await?)?;
    ensure!(error.starts_with("Code: 469."), "{error}");
    assert_eq!(stored(&client).await?, []);
    insert_native(&client, "t", &both[..1]).await??;
    assert_eq!(stored(&client).await?, both[..1]);
    Ok(())
}

#[tokio::test]
async fn a_constraint_on_the_time_looks_when_the_rows_are_all_there() -> anyhow::Result<()> {
    let client = database("in_time").await?;
    client
        .query(
            "CREATE TABLE events (id UInt64, text String, at DateTime64(3) DEFAULT fromUnixTimestamp64Milli(id),
                 CONSTRAINT in_time CHECK at > nowInBlock64(3) - INTERVAL 1 SECOND)
             ENGINE = MergeTree ORDER BY id",
        )
        .execute()
        .await?;
    let now = "SELECT toUInt64(toUnixTimestamp64Milli(now64(3)))";
    let now: u64 = client.query(now).fetch_one().await?;
    let mut insert = client.insert_native("events");
    insert
        .write(&block(&[Event::new(now, "in time when it was sent")])?)
        .await?;
    // The engine's clock decides, so it is the one to watch.
    let late = format!("SELECT toUInt64(toUnixTimestamp64Milli(now64(3)) > {now} + 1000)");
    wait_until(&client, &late, 1).await?;
    let error = refused(insert.end().await)?;
    ensure!(error.starts_with("Code: 469."), "{error}");
    assert_eq!(stored(&client).await?, []);
    Ok(())
}

#[tokio::test]
async fn an_insert_may_stand_in_the_address_or_in_the_body() -> anyhow::Result<()> {
    let client = database("places").await?;
    events(&client).await?;
    let http = reqwest::Client::new();
    let at = [("database", "places")];
    let in_address = [
        ("database", "places"),
        ("query", "INSERT INTO events FORMAT CSV"),
    ];
    for (query, body) in [
        (&in_address[..], "1,\"a\n\n;b\"\n2,c\n"),
        (&at[..], "INSERT INTO events FORMAT TSV\n3\td\n"),
        (
            &at[..],
            "INSERT INTO events (text, id) VALUES ('e;''', 4), (lower('F'), 5);",
        ),
        (&at[..], "INSERT INTO events SELECT 6, 'g'"),
    ] {
        let answer = http.post(url()?).query(query).body(body).send().await?;
        assert_eq!(answer.status(), 200, "{}", answer.text().await?);
    }
    let texts: Vec<String> = stored(&client)
        .await?
        .into_iter()
        .map(|event| event.text)
        .collect();
    assert_eq!(texts, ["a\n\n;b", "c", "d", "e;'", "f", "g"]);
    Ok(())
}

#[tokio::test]
async fn an_insert_without_a_table_says_so_however_much_is_sent() -> anyhow::Result<()> {
    let client = database("no_table").await?.with_validation(false);
    let mut insert = client.insert::<Event>("events").await?;
    let mut answer = Ok(());
    for id in 0..200_000 {
        answer = insert
            .write(&Event::new(id, "0123456789012345678901234567890123456789"))
            .await;
        if answer.is_err() {
            break;
        }
    }
    if answer.is_ok() {
        answer = insert.end().await;
    }
    let error = refused(answer)?;
    ensure!(error.starts_with("Code: 60."), "{error}");
    Ok(())
}

#[tokio::test]
async fn rows_that_break_off_are_refused_whole() -> anyhow::Result<()> {
    let client = database("broken_off").await?;
    events(&client).await?;
    let query = [
        ("database", "broken_off"),
        ("query", "INSERT INTO events FORMAT RowBinary"),
    ];
    let mut body = [1_u64.to_le_bytes().as_slice(), b"\x01a"].concat();
    body.extend(2_u64.to_le_bytes().iter().take(5));
    let answer = reqwest::Client::new()
        .post(url()?)
        .query(&query)
        .body(body)
        .send()
        .await?;
    ensure!(answer.headers().contains_key("x-clickhouse-exception-code"));
    assert_eq!(stored(&client).await?, []);
    Ok(())
}

#[tokio::test]
async fn an_insert_that_is_too_large_stores_nothing() -> anyhow::Result<()> {
    let folder = data("limit")?;
    let mut engine = engine(folder.path(), &["--max-insert-bytes", "1000000"])?;
    let url = engine.ready(START).await?;
    let client = database_at(&url, "large").await?;
    events(&client).await?;
    let query = [
        ("database", "large"),
        ("query", "INSERT INTO events FORMAT CSV"),
    ];
    let http = reqwest::Client::new();
    let answer = http
        .post(&url)
        .query(&query)
        .body("1,abcdefgh\n".repeat(100_000))
        .send()
        .await?;
    assert_eq!(answer.status(), 413);
    assert_eq!(answer.headers()["x-clickhouse-exception-code"], "229");
    assert_eq!(stored(&client).await?, []);
    Ok(())
}
