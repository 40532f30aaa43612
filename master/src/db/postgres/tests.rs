//! The suite on PostgreSQL, and what only a server can do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};

use super::{MIGRATIONS, OpenError, Server, UrlError};
use crate::db::conformance::events::event;
use crate::db::conformance::races;
use crate::db::conformance::{enrolled, host, spool, suite};
use crate::db::sql::{Pool, SqlStore};
use crate::db::{Store, StoreError};
use crate::metrics::Metrics;

mod tls;

/// A database of one test on the server of the tests; it goes with the test.
pub(crate) struct Guest {
    name: String,
    administrator: Server,
    pub(crate) server: Server,
}

impl Guest {
    pub(crate) async fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("decnet_test_{}_{number}", std::process::id());
        let administrator = Server::new(&url(), None).expect("the tests' URL is one");
        let server = Server {
            options: Box::new(PgConnectOptions::clone(&administrator.options).database(&name)),
        };
        let guest = Self {
            name,
            administrator,
            server,
        };
        // Of `template0`: `template1` cannot be copied by two at once.
        guest
            .administer(format!(
                "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'",
                guest.name
            ))
            .await;
        guest
    }

    pub(crate) async fn open(&self) -> SqlStore {
        super::open(&self.server).await.expect("it opens")
    }

    async fn administer(&self, sql: String) {
        administer(&self.administrator, sql).await;
    }

    async fn connect(&self) -> PgConnection {
        PgConnection::connect_with(&self.server.options)
            .await
            .expect("the server of the tests answers")
    }
}

async fn administer(server: &Server, sql: String) {
    let mut connection = PgConnection::connect_with(&server.options)
        .await
        .expect("the server of the tests answers");
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .expect("the server of the tests obeys");
}

impl Drop for Guest {
    fn drop(&mut self) {
        let server = self.administrator.clone();
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        // A drop cannot wait for a future of the runtime that it runs on.
        let gone = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made")
                .block_on(administer(&server, sql));
        });
        drop(gone.join());
    }
}

/// Where the server of the tests is: `scripts/test.sh` starts it and says so.
#[allow(
    clippy::disallowed_methods,
    reason = "a test is told by its environment"
)]
fn url() -> String {
    if let Ok(url) = std::env::var("DECNET_TEST_POSTGRES") {
        return url;
    }
    let note = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/postgres/url");
    std::fs::read_to_string(note)
        .expect("DECNET_TEST_POSTGRES names no server; scripts/test.sh starts one and says where")
        .trim()
        .to_owned()
}

async fn fresh() -> (Arc<dyn Store>, Guest) {
    let guest = Guest::new().await;
    (Arc::new(guest.open().await), guest)
}

suite!(fresh);

fn writer(store: &SqlStore) -> &PgPool {
    match &store.write {
        Pool::Postgres(pool) => pool,
        Pool::Sqlite(_) => panic!("a server is of PostgreSQL"),
    }
}

fn reader(store: &SqlStore) -> &PgPool {
    match &store.read.pool {
        Pool::Postgres(pool) => pool,
        Pool::Sqlite(_) => panic!("a server is of PostgreSQL"),
    }
}

#[tokio::test]
async fn masters_that_start_together_make_one_schema() {
    let guest = Guest::new().await;
    let (one, two, three) = tokio::join!(guest.open(), guest.open(), guest.open());
    for store in [&one, &two, &three] {
        assert_eq!(store.epoch().await.expect("answered").get(), 1);
    }
}

#[tokio::test]
async fn what_one_master_writes_another_reads() {
    let guest = Guest::new().await;
    let one: Arc<dyn Store> = Arc::new(guest.open().await);
    let edge = enrolled(&one, 1, "edge").await;
    drop(one);
    let two: Arc<dyn Store> = Arc::new(guest.open().await);
    assert_eq!(host(&two, edge).await.name.as_str(), "edge");
}

#[tokio::test]
async fn refuses_a_database_of_a_newer_release() {
    let guest = Guest::new().await;
    drop(guest.open().await);
    sqlx::query("UPDATE decnet_schema SET version = 99")
        .execute(&mut guest.connect().await)
        .await
        .expect("altered");
    match super::open(&guest.server).await {
        Err(OpenError::Newer {
            found: 99, known, ..
        }) => assert_eq!(usize::try_from(known), Ok(MIGRATIONS.len())),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn refuses_a_foreign_database_and_one_that_is_not_there() {
    let guest = Guest::new().await;
    sqlx::query("CREATE TABLE invoices (id INTEGER)")
        .execute(&mut guest.connect().await)
        .await
        .expect("altered");
    let refused = super::open(&guest.server).await;
    assert!(
        matches!(refused, Err(OpenError::Foreign { .. })),
        "{refused:?}"
    );

    let nowhere = Server {
        options: Box::new(
            PgConnectOptions::clone(&guest.server.options).database("decnet_test_nowhere"),
        ),
    };
    let refused = super::open(&nowhere).await;
    assert!(
        matches!(refused, Err(OpenError::Connect { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_audit_log_cannot_be_rewritten() {
    let guest = Guest::new().await;
    let store = guest.open().await;
    for sql in [
        "DELETE FROM audit",
        "UPDATE audit SET detail = 'x'",
        "TRUNCATE audit",
    ] {
        let refused = sqlx::query(sql)
            .execute(writer(&store))
            .await
            .expect_err("it is refused");
        assert!(refused.to_string().contains("append-only"), "{refused}");
    }
}

#[tokio::test]
async fn readers_cannot_write() {
    let guest = Guest::new().await;
    let store = guest.open().await;
    let refused = sqlx::query("DELETE FROM tokens")
        .execute(reader(&store))
        .await;
    assert!(
        refused
            .expect_err("it is refused")
            .to_string()
            .contains("read-only")
    );
}

#[tokio::test]
async fn a_connection_that_the_server_cut_is_busy_or_made_anew() {
    let guest = Guest::new().await;
    let store = guest.open().await;
    let batch = |number| vec![event(number)];
    let host = domain::id::HostId::new(crate::db::conformance::uuid(5));
    store
        .append_events(host, spool(1), batch(1))
        .await
        .expect("stored");
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .execute(&mut guest.connect().await)
    .await
    .expect("cut");
    let mut asked = 0;
    while let Err(error) = store.append_events(host, spool(1), batch(2)).await {
        assert!(matches!(error, StoreError::Busy { .. }), "{error:?}");
        asked += 1;
        assert!(asked < 20, "the pool does not recover");
    }
}

#[tokio::test]
async fn a_topology_is_as_many_statements_whatever_its_size() {
    let guest = Guest::new().await;
    let metrics = Arc::new(Metrics::default());
    let store = guest.open().await.counted_in(Arc::clone(&metrics));
    races::a_topology_is_as_many_statements_whatever_its_size(&store, &metrics).await;
}

#[test]
fn the_password_of_a_url_is_shown_nowhere() {
    let url = "postgres://decnet:s3cret@db.example:5433/decnet?sslmode=verify-full";
    let server = Server::new(url, None).expect("it is a URL");
    for shown in [format!("{server}"), format!("{server:?}")] {
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("db.example:5433/decnet"), "{shown}");
    }
    assert!(Server::holds_password(url));
    assert!(Server::holds_password("postgres://h/d?user=a&password=b"));
    assert!(!Server::holds_password("postgres://decnet@db/decnet"));
    assert!(!Server::holds_password("postgres://db:5432/decnet"));
}

#[test]
fn a_url_of_something_else_is_refused() {
    for (url, why) in [
        ("mysql://a@b/c", UrlError::Scheme),
        ("sqlite:x.db", UrlError::Scheme),
        ("postgres://a@b:port/c", UrlError::Malformed),
        ("postgres://a@b/c?sslmode=perhaps", UrlError::Malformed),
    ] {
        assert_eq!(Server::new(url, None).map(drop), Err(why), "{url}");
    }
}

#[test]
fn another_machine_is_reached_by_verified_tls_unless_it_is_said_otherwise() {
    use sqlx::postgres::PgSslMode::{Disable, Prefer, VerifyFull};
    for (url, mode) in [
        ("postgres://a@db.example/c", VerifyFull),
        ("postgres://a@192.0.2.1/c", VerifyFull),
        ("postgres://a@db.example/c?sslmode=disable", Disable),
        ("postgres://a@127.0.0.1/c", Prefer),
        ("postgres:///c?host=/run/postgresql", Prefer),
    ] {
        let server = Server::new(url, None).expect("it is a URL");
        let found = format!("{:?}", server.options.get_ssl_mode());
        assert_eq!(found, format!("{mode:?}"), "{url}");
    }
}

#[tokio::test]
async fn the_schema_is_the_one_in_the_golden() {
    let guest = Guest::new().await;
    let store = guest.open().await;
    let parts: Vec<String> = sqlx::query_scalar(include_str!("schema.sql"))
        .fetch_all(reader(&store))
        .await
        .expect("the schema is readable");
    insta::with_settings!(
        { snapshot_path => "..", prepend_module_to_snapshot => false, omit_expression => true },
        { insta::assert_snapshot!("schema.postgres", parts.join("\n\n")); }
    );
}
