//! Access control of a server, as far as the engine can try it. Users and roles cannot be made by SQL here, but
//! `users.xml` can have them: so what the statements grant, and the condition of the policy, is put there as it is
//! written, and views read as those users.

use anyhow::{Context as _, ensure};
use audit_local::child::Child;
use audit_schema::access::{self, ANALYST, LIMITS, VIEWER};
use audit_schema::clickhouse::{Address, Engine};
use audit_schema::migrate::{Options, migrate};
use clickhouse::Client;

use crate::stand::{LIMIT, START, data, database, engine, refused, url};

/// The database of our tables.
const DATABASE: &str = "audit";

fn statements() -> Vec<String> {
    access::statements(DATABASE, &Engine::SingleNode)
}

/// What is granted to a role or user, as `users.xml` takes it.
fn grants_of(name: &str) -> String {
    let to = format!(" TO {name}");
    let mut queries = String::new();
    for statement in statements() {
        let granted = statement.strip_prefix("GRANT ");
        let Some(rights) = granted.and_then(|granted| granted.strip_suffix(&to)) else {
            continue;
        };
        for right in rights.split(", ") {
            queries += &["<query>GRANT ", right, "</query>"].concat();
        }
    }
    format!("<grants>{queries}</grants>")
}

/// The condition of the policy that binds the viewer.
fn policy() -> anyhow::Result<String> {
    let statements = statements();
    let policy = statements
        .iter()
        .find_map(|statement| {
            let (_, rest) = statement.split_once("USING ")?;
            rest.strip_suffix(&format!(" AS RESTRICTIVE TO {VIEWER}"))
        })
        .context("there is no policy of the viewer")?;
    ensure!(!policy.contains(['<', '&']), "{policy} is no XML");
    Ok(policy.to_owned())
}

/// An engine with our tables, the viewer, and an analyst called `ana`.
async fn server(folder: &std::path::Path) -> anyhow::Result<(Child, Client)> {
    let user = |name: &str, more: &str| {
        format!(
            "<{name}><password/><networks><ip>::/0</ip></networks><profile>default</profile>\
             <quota>default</quota>{more}</{name}>"
        )
    };
    let viewer = format!(
        "{}<databases><{DATABASE}><audit_events><filter>{}</filter></audit_events></{DATABASE}></databases>",
        grants_of(VIEWER),
        policy()?
    );
    let users = [
        user("default", "<access_management>1</access_management>"),
        user(VIEWER, &viewer),
        user("ana", &grants_of(ANALYST)),
    ];
    let users = format!(
        "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users>{}</users></clickhouse>",
        users.concat()
    );
    let file = folder.join("wanted-users.xml");
    std::fs::write(&file, users)?;
    let mut child = engine(folder, &["--users", &file.to_string_lossy()])?;
    let url = child.ready(START).await?;
    let address = Address::open(&url, DATABASE);
    let options = Options {
        engine: Engine::SingleNode,
        fsync: false,
    };
    migrate(address, &options, false, |_| {}).await?;
    let client = Client::default().with_url(url).with_database(DATABASE);
    for statement in statements() {
        if statement.starts_with("ALTER TABLE") {
            client.query_raw(&statement).execute().await?;
        }
    }
    client
        .query(
            "INSERT INTO audit_events (project_id, event_id, user_id, created_at, logged_at, ingested_at) \
             SELECT 'project-' || toString(number % 3), generateUUIDv4(), 'user-' || toString(number), \
             now64(3), now64(3), now64(3) FROM numbers(30)",
        )
        .execute()
        .await?;
    Ok((child, client))
}

/// What `ana` gets for a query: a view reads as her.
async fn ana(client: &Client, sql: &str) -> clickhouse::error::Result<Vec<String>> {
    let view = format!(
        "CREATE OR REPLACE VIEW default.of_ana DEFINER = ana SQL SECURITY DEFINER AS {sql}"
    );
    client.query_raw(&view).execute().await?;
    let rows = client.query("SELECT toString(tuple(*)) FROM default.of_ana ORDER BY 1");
    rows.fetch_all().await
}

#[tokio::test]
async fn an_analyst_sees_the_projects_granted_and_nothing_else() -> anyhow::Result<()> {
    let folder = data("access")?;
    let (child, client) = server(folder.path()).await?;
    let count = format!("SELECT project_id, count() FROM {DATABASE}.audit_log GROUP BY 1");

    // Nobody was granted anything.
    assert_eq!(ana(&client, &count).await?, Vec::<String>::new());
    // Views read as somebody else, and who asks is still who asks: here it is `default`.
    client
        .query("INSERT INTO audit_grants (user_name, project_id) VALUES ('default', 'project-1'), ('zoe', 'project-2')")
        .execute()
        .await?;
    assert_eq!(ana(&client, &count).await?, ["('project-1',10)"]);
    let own: u64 = client
        .query("SELECT count() FROM audit_log WHERE user_id = 'user-0'")
        .fetch_one()
        .await?;
    assert_eq!(own, 0, "the event is of another project");
    client
        .query("DELETE FROM audit_grants WHERE user_name = 'default'")
        .execute()
        .await?;
    assert_eq!(ana(&client, &count).await?, Vec::<String>::new());

    for sql in [
        "SELECT count() FROM audit.audit_events",
        "SELECT count() FROM audit.audit_dead_letters",
        "SELECT count() FROM audit.audit_grants",
        "SELECT project_id FROM mergeTreeIndex('audit', 'audit_events')",
        "SELECT project_id FROM mergeTreeProjection('audit', 'audit_events', 'by_kind')",
        "SELECT token FROM mergeTreeTextIndex('audit', 'audit_events', 'by_user_id')",
        "SELECT * FROM mergeTreeAnalyzeIndexes('audit', 'audit_events', user_id = 'user-0')",
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "SELECT * FROM executable('true', 'TSV', 'a String')",
        "SELECT * FROM remote('127.0.0.1', 'audit.audit_events')",
    ] {
        let error = refused(ana(&client, sql).await)?;
        ensure!(
            error.starts_with("Code: 497.") && error.contains("ana: Not enough privileges"),
            "{sql}: {error}"
        );
    }
    for readable in ["audit_watermarks", "audit_sources"] {
        ana(&client, &format!("SELECT * FROM audit.{readable}")).await?;
    }
    ensure!(child.stop(LIMIT).await?.success());
    Ok(())
}

#[tokio::test]
async fn a_policy_reads_no_more_than_the_projects_granted() -> anyhow::Result<()> {
    let folder = data("pruned")?;
    let (child, client) = server(folder.path()).await?;
    let plan: Vec<String> = client
        .query("EXPLAIN indexes = 1 SELECT count() FROM audit_log WHERE user_id = 'user-1'")
        .fetch_all()
        .await?;
    let plan = plan.join("\n");
    ensure!(plan.contains("Row level filter"), "{plan}");
    ensure!(
        plan.contains("Condition: (project_id in 0-element set)"),
        "{plan}"
    );
    ensure!(
        plan.contains("Name: by_user_id") || plan.contains("Parts: 0/1"),
        "{plan}"
    );
    ensure!(child.stop(LIMIT).await?.success());
    Ok(())
}

#[tokio::test]
async fn the_engine_reads_every_statement_and_has_every_setting() -> anyhow::Result<()> {
    let client = database("access_statements").await?;
    let cluster = Engine::Cluster("audit".to_owned());
    for statement in statements()
        .into_iter()
        .chain(access::statements(DATABASE, &cluster))
    {
        let read = client.query_raw(&format!("EXPLAIN AST {statement}"));
        let read = read.execute().await;
        read.with_context(|| statement.clone())?;
    }
    for limit in LIMITS {
        let known: u64 = client
            .query("SELECT count() FROM system.settings WHERE name = ? AND NOT is_obsolete")
            .bind(limit.setting)
            .fetch_one()
            .await?;
        assert_eq!(known, 1, "{}", limit.setting);
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_cannot_keep_roles_says_what_it_lacks() -> anyhow::Result<()> {
    database("access_refused").await?;
    let address = Address::open(url()?, "access_refused");
    let error = access::apply(address, &Engine::SingleNode).await;
    let error = error.err().context("the embedded engine made roles")?;
    ensure!(error.to_string().contains("access_control_path"), "{error}");
    Ok(())
}
