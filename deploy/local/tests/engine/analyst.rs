//! The user `analyst` of the embedded engine: reads, within limits that cannot be lifted.

use anyhow::ensure;
use clickhouse::Client;

use crate::stand::{Event, LIMIT, START, data, database, engine, events, refused, stored};

/// A database with one row, and an analyst in it.
async fn analyst(name: &str) -> anyhow::Result<(Client, Client)> {
    let client = database(name).await?;
    events(&client).await?;
    let mut insert = client.insert::<Event>("events").await?;
    insert.write(&Event::new(1, "kept")).await?;
    insert.end().await?;
    let analyst = client.clone().with_user("analyst");
    Ok((client, analyst))
}

#[tokio::test]
async fn an_analyst_reads_and_does_nothing_else() -> anyhow::Result<()> {
    let (client, analyst) = analyst("analyst_reads").await?;
    assert_eq!(stored(&analyst).await?, [Event::new(1, "kept")]);
    for sql in [
        "SHOW TABLES",
        "DESCRIBE events",
        "EXPLAIN SELECT 1",
        "EXISTS events",
    ] {
        analyst.query(sql).execute().await?;
    }
    for sql in [
        "INSERT INTO events SELECT 2, 'x'",
        "INSERT INTO events VALUES (2, 'x')",
        "WITH 2 AS id INSERT INTO events SELECT id, 'x'",
        "ALTER TABLE events DELETE WHERE 1",
        "DELETE FROM events WHERE 1",
        "TRUNCATE TABLE events",
        "DROP TABLE events",
        "CREATE TABLE mine (a UInt8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE mine (a UInt8)",
        "OPTIMIZE TABLE events",
        "SYSTEM STOP MERGES",
        "SYSTEM SHUTDOWN",
        "KILL QUERY WHERE 1",
        "SET readonly = 0",
    ] {
        let error = refused(analyst.query_raw(sql).execute().await)?;
        ensure!(error.starts_with("Code: 164."), "{sql}: {error}");
    }
    let mut insert = analyst.insert::<Event>("events").await?;
    insert.write(&Event::new(2, "x")).await?;
    let error = refused(insert.end().await)?;
    ensure!(error.starts_with("Code: 164."), "{error}");
    assert_eq!(stored(&client).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn an_analyst_reads_no_files_and_no_addresses() -> anyhow::Result<()> {
    let (_, analyst) = analyst("analyst_files").await?;
    for sql in [
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT * FROM default.`/etc/hostname`",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "SELECT * FROM s3('http://127.0.0.1:1/a/b', 'LineAsString')",
        "SELECT * FROM remote('127.0.0.1', 'system.one')",
        "SELECT * FROM executable('true', 'TSV', 'a String')",
        "SELECT 1 INTO OUTFILE 'x'",
    ] {
        let error = refused(analyst.query_raw(sql).execute().await)?;
        ensure!(error.starts_with("Code: "), "{sql}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn an_analyst_lowers_limits_and_lifts_none() -> anyhow::Result<()> {
    let (_, analyst) = analyst("analyst_limits").await?;
    let limit = "SELECT toString(getSetting('max_execution_time'))";
    assert_eq!(analyst.query(limit).fetch_one::<String>().await?, "60");
    let lower = analyst.clone().with_setting("max_execution_time", "5");
    assert_eq!(lower.query(limit).fetch_one::<String>().await?, "5");

    let lifted = [
        ("max_execution_time", "0"),
        ("max_execution_time", "61"),
        ("max_memory_usage", "0"),
        ("max_memory_usage", "100000000000"),
        ("max_rows_to_read", "0"),
        ("max_result_rows", "1000001"),
        ("max_threads", "64"),
        ("priority", "1"),
        ("allow_ddl", "1"),
        ("readonly", "0"),
        ("readonly", "1"),
    ];
    for (setting, value) in lifted {
        let beside = analyst.clone().with_setting(setting, value);
        let within = format!("SELECT 1 SETTINGS {setting} = {value}");
        // Another profile does not take the constraints away.
        let escaping = format!("SELECT 1 SETTINGS profile = 'default', {setting} = {value}");
        for answer in [
            beside.query("SELECT 1").execute().await,
            analyst.query(&within).execute().await,
            analyst.query(&escaping).execute().await,
            beside
                .with_setting("profile", "default")
                .query("SELECT 1")
                .execute()
                .await,
        ] {
            let error = refused(answer)?;
            ensure!(
                ["Code: 452.", "Code: 164.", "Code: 392."]
                    .iter()
                    .any(|code| error.starts_with(code)),
                "{setting} = {value}: {error}"
            );
        }
    }
    let broad = analyst.query("SELECT * FROM numbers(2000000)");
    let error = refused(broad.fetch_all::<u64>().await)?;
    ensure!(error.starts_with("Code: 396."), "{error}");
    Ok(())
}

#[tokio::test]
async fn an_analyst_needs_a_password_of_their_own_where_others_need_one() -> anyhow::Result<()> {
    let folder = data("analyst")?;
    let file = |name: &str, password: &str| -> anyhow::Result<String> {
        let file = folder.path().join(name);
        std::fs::write(&file, password)?;
        Ok(file.to_string_lossy().into_owned())
    };
    let (all, own) = (file("all", "secret")?, file("own", "theirs")?);
    let options = ["--password-file", &all, "--analyst-password-file", &own];
    let mut child = engine(folder.path(), &options)?;
    let client = Client::default()
        .with_url(child.ready(START).await?)
        .with_user("analyst");
    for wrong in ["", "secret"] {
        let client = client.clone().with_password(wrong);
        let error = refused(client.query("SELECT 1").execute().await)?;
        ensure!(error.starts_with("Code: 516."), "{error}");
    }
    let client = client.with_password("theirs");
    client.query("SELECT 1").execute().await?;
    ensure!(child.stop(LIMIT).await?.success());
    Ok(())
}
