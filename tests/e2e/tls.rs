//! The services behind TLS, with a ClickHouse behind TLS and a password, and no secret in the
//! environment.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::ensure;

use audit_tests::certificates::Authority;
use audit_tests::process::{Process, address, wait_until};
use audit_tests::server::Server;
use audit_tests::tls_proxy::TlsProxy;
use audit_tests::world::{Service, World};

const PASSWORD: &str = "clickhouse-secret-0123";

/// Asks as any client would; `None` if there is no answer, or none that is good.
fn curl(ca: &Path, url: &str, more: &[&str]) -> anyhow::Result<Option<String>> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--cacert"])
        .arg(ca)
        .args(more)
        .arg(url)
        .output()?;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(output.status.success().then_some(answer))
}

fn secure_url(service: &Service) -> String {
    service.url.replace("http://", "https://")
}

/// Sets this key of these services.
fn set(world: &World, services: &[&str], key: &str, value: &str) {
    for service in services {
        world.set(&format!("AUDIT_{service}_{key}"), value);
    }
}

/// Lets the services started from now on ask ClickHouse over TLS, with the password in a file.
fn ask_clickhouse(world: &World, url: &str, ca: &Path, secret: &Path) {
    let readers = ["CONSUMER", "QUERY_API"];
    set(world, &readers, "CLICKHOUSE__URL", url);
    set(world, &readers, "CLICKHOUSE__CA", &ca.display().to_string());
    set(world, &readers, "CLICKHOUSE__USER", "default");
    let password = format!("file:{}", secret.display());
    set(world, &readers, "CLICKHOUSE__PASSWORD", &password);
}

/// Lets them speak TLS themselves, and ask for certificates at their admin ports.
fn listen(world: &World, certificate: &Path, key: &Path, ca: &Path) {
    let apis = ["INGEST", "QUERY_API"];
    let all = ["INGEST", "QUERY_API", "CONSUMER"];
    for (services, section) in [(&apis[..], "HTTP"), (&all[..], "ADMIN")] {
        let tls = |name: &str| format!("{section}__TLS__{name}");
        let file = |path: &Path| path.display().to_string();
        set(world, services, &tls("CERTIFICATE"), &file(certificate));
        set(world, services, &tls("KEY"), &file(key));
    }
    set(
        world,
        &all,
        "ADMIN__TLS__CLIENT_CA",
        &ca.display().to_string(),
    );
}

pub(crate) async fn every_hop_is_encrypted_and_secrets_are_in_files(
    world: Arc<World>,
) -> anyhow::Result<()> {
    let folder = world.logs();
    let (authority, other) = (
        Authority::new("authority", folder)?,
        Authority::new("another", folder)?,
    );
    let (ca, other_ca) = (authority.file.as_path(), other.file.as_path());
    let secret = folder.join("clickhouse-password");
    std::fs::write(&secret, format!("{PASSWORD}\n"))?;
    let mut engine = Server::engine(&world)?;
    let secret_file = secret.display().to_string();
    engine.arguments = vec!["--password-file".to_owned(), secret_file];
    engine.run().await?;
    world.use_engine(&format!("http://default:{PASSWORD}@{}", engine.address()));
    let proxy = TlsProxy::start(&engine.address(), &authority.sign("clickhouse")?)?;

    ask_clickhouse(&world, &proxy.url(), ca, &secret);
    let [certificate, key] = authority.sign("audit")?.keep(folder, "audit")?;
    listen(&world, &certificate, &key, ca);

    world.migrate()?;
    let api_key = world.key("acme", &["write", "read"])?;
    let (consumer, ingest) = (world.consumer().await?, world.ingest().await?);
    let reader = world.query_api().await?;
    let header = format!("x-api-key: {}", api_key.secret);
    let with_key = ["--header", header.as_str()];
    let json = [
        "--json",
        r#"{"eventType": "user_signed_in", "eventKey": "u"}"#,
    ];
    let sent = [with_key, json].concat();
    let events = format!("{}/v1/events", secure_url(&ingest));
    ensure!(
        curl(ca, &events, &sent)?.is_some(),
        "{}",
        ingest.process.printed()
    );
    world.stored(1).await?;
    world.settled().await?;
    let read = curl(
        ca,
        &format!("{}/v1/audit-logs", secure_url(&reader)),
        &with_key,
    )?;
    ensure!(read.is_some_and(|read| read.contains("user_signed_in")));
    ensure!(curl(ca, &format!("{}/v1/events", ingest.url), &sent)?.is_none());

    let services = [
        ("CONSUMER", &consumer),
        ("INGEST", &ingest.process),
        ("QUERY_API", &reader.process),
    ];
    admin_ports_ask_for_a_certificate(&world, &authority, services).await?;

    // Of another authority, so that it shows which one is used.
    other.sign("audit")?.keep(folder, "audit")?;
    wait_until("the new certificate", async || {
        curl(other_ca, &events, &sent)
    })
    .await?;
    ensure!(curl(ca, &events, &sent)?.is_none());
    for process in [&consumer, &ingest.process, &reader.process] {
        ensure!(
            !process.printed().contains(PASSWORD),
            "a password is logged"
        );
    }
    drop(reader);

    set(
        &world,
        &["QUERY_API"],
        "CLICKHOUSE__CA",
        &other_ca.display().to_string(),
    );
    not_ready_because(&world, "UnknownIssuer").await?;
    set(
        &world,
        &["QUERY_API"],
        "CLICKHOUSE__CA",
        &ca.display().to_string(),
    );
    set(&world, &["QUERY_API"], "CLICKHOUSE__PASSWORD", "wrong");
    not_ready_because(&world, "Authentication failed").await?;

    world.settled().await?;
    world.audit()
}

async fn admin_ports_ask_for_a_certificate(
    world: &World,
    authority: &Authority,
    services: [(&str, &Process); 3],
) -> anyhow::Result<()> {
    let folder = world.logs();
    let [own, own_key] = authority.sign("prometheus")?.keep(folder, "prometheus")?;
    let (own, own_key) = (own.display().to_string(), own_key.display().to_string());
    for (service, process) in services {
        let port = process.says("admin", address("admin port is open")).await?;
        let metrics = format!("https://{port}/metrics");
        ensure!(curl(&authority.file, &metrics, &[])?.is_none());
        let shown = curl(
            &authority.file,
            &metrics,
            &["--cert", &own, "--key", &own_key],
        )?;
        let expiry = r#"audit_tls_certificate_expiry_seconds{listener="admin"}"#;
        ensure!(shown.is_some_and(|shown| shown.contains(expiry)), "{port}");

        let program = format!("audit-{}", service.to_lowercase().replace('_', "-"));
        let asked = world
            .command(&program, &["healthcheck"])?
            .env(format!("AUDIT_{service}_ADMIN__LISTEN"), &port)
            .output()?;
        let said = String::from_utf8_lossy(&asked.stderr).into_owned();
        ensure!(asked.status.success(), "{program}: {said}");
    }
    Ok(())
}

/// Starts a query API that has to say so.
async fn not_ready_because(world: &World, reason: &str) -> anyhow::Result<()> {
    let reader = world.query_api().await?;
    let said = |line: &str| (line.contains("not ready") && line.contains(reason)).then_some(());
    reader.process.says(reason, said).await
}
