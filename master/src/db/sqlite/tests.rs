//! The suite on SQLite, and what only a file can do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::SqlitePool;
use tempfile::TempDir;

use super::{MIGRATIONS, OpenError, open_with};
use crate::db::conformance::events::event;
use crate::db::conformance::races;
use crate::db::conformance::upkeep::entry;
use crate::db::conformance::{
    at, deployed, enrolled, host, operator, spool, status, suite, topology,
};
use crate::db::sql::{Pool, SqlStore};
use crate::db::upkeep::AuditChain;
use crate::db::{AuditEntry, EventFilter, Store, StoreError, postgres};
use crate::metrics::Metrics;

async fn fresh() -> (Arc<dyn Store>, TempDir) {
    let directory = directory();
    // No law of the suite cuts the power, and thousands of commits each wait for the disk.
    let store = open_with(&file(&directory), &[("synchronous", "OFF")], MIGRATIONS)
        .await
        .expect("a new database opens");
    (Arc::new(store), directory)
}

suite!(fresh);

fn directory() -> TempDir {
    TempDir::new().expect("the system has a directory for temporary files")
}

fn file(directory: &TempDir) -> PathBuf {
    directory.path().join("master.db")
}

async fn open(path: &Path) -> Arc<dyn Store> {
    Arc::new(super::open(path).await.expect("the database opens"))
}

fn writer(store: &SqlStore) -> &SqlitePool {
    match &store.write {
        Pool::Sqlite(pool) => pool,
        Pool::Postgres(_) => panic!("a file is of SQLite"),
    }
}

fn reader(store: &SqlStore) -> &SqlitePool {
    match &store.read.pool {
        Pool::Sqlite(pool) => pool,
        Pool::Postgres(_) => panic!("a file is of SQLite"),
    }
}

/// Runs statements on a closed database.
async fn alter(path: &Path, sql: &'static str) {
    let store = super::open(path).await.expect("the database opens");
    sqlx::raw_sql(sql)
        .execute(writer(&store))
        .await
        .expect("the statement is good");
    store.close().await;
}

#[tokio::test]
async fn what_was_committed_survives_the_death_of_the_process() {
    let directory = directory();
    let store = open(&file(&directory)).await;
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 3);
    let assignment = deployed(&store, &maze, edge).await;
    store
        .append_events(edge, spool(1), (0..700).map(event).collect())
        .await
        .expect("stored");

    // What a killed process leaves: the files as they are, with nobody to write back the log.
    let grave = self::directory();
    for name in ["master.db", "master.db-wal"] {
        fs::copy(directory.path().join(name), grave.path().join(name)).expect("copied");
    }
    let risen = open(&file(&grave)).await;
    assert_eq!(host(&risen, edge).await.assignment, assignment);
    assert_eq!(status(&risen, &maze).await, status(&store, &maze).await);
    assert_eq!(
        risen
            .count_events(&EventFilter::default())
            .await
            .expect("answered"),
        700
    );
    let before = store.audit_log(100).await.expect("answered");
    assert_eq!(risen.audit_log(100).await.expect("answered"), before);

    drop(store);
    let again = open(&file(&directory)).await;
    assert_eq!(host(&again, edge).await.assignment, assignment);
}

#[tokio::test]
async fn a_full_disk_is_named_loses_nothing_and_is_survived() {
    let directory = directory();
    let path = file(&directory);
    let full = open_with(&path, &[("max_page_count", "160")], MIGRATIONS)
        .await
        .expect("opens");
    let store: Arc<dyn Store> = Arc::new(full);
    let mut stored = 0;
    let refusal = loop {
        let batch = (stored..stored + 100).map(event).collect();
        match store.append_events(host_id(), spool(1), batch).await {
            Ok(appended) => stored += appended.stored,
            Err(error) => break error,
        }
        assert!(stored < 100_000, "the limit does not hold");
    };
    assert!(matches!(refusal, StoreError::Full { .. }), "{refusal:?}");
    // Neither is the writer poisoned by the transaction that SQLite ended by itself, nor does a
    // part of the batch stay.
    for _ in 0..3 {
        let batch = (stored..stored + 100).map(event).collect();
        let again = store.append_events(host_id(), spool(1), batch).await;
        assert!(matches!(again, Err(StoreError::Full { .. })), "{again:?}");
    }
    assert_eq!(
        store
            .count_events(&EventFilter::default())
            .await
            .expect("answered"),
        stored
    );
    drop(store);

    let roomy = open(&path).await;
    let batch = (stored..stored + 100).map(event).collect();
    let appended = roomy
        .append_events(host_id(), spool(1), batch)
        .await
        .expect("there is room");
    assert_eq!(appended.stored, 100);
}

#[tokio::test]
async fn a_commit_that_nobody_waits_for_is_counted_too() {
    use futures_util::FutureExt as _;

    let directory = directory();
    let store = super::open(&file(&directory)).await.expect("opens");
    let before = store.version().expect("one process has the file");
    let tx = store
        .writing("be left alone")
        .await
        .expect("nobody else writes");
    // As when a client disconnects: its request is dropped in the middle of the commit.
    assert_eq!(tx.commit().now_or_never().map(|done| done.is_ok()), None);
    // The next one gets its turn when that one has ended.
    let next = store.writing("follow").await.expect("its turn comes");
    tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while store.version() == Some(before) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is counted");
    drop(next);
}

#[tokio::test]
async fn a_transaction_that_sqlite_ended_by_itself_does_not_poison_the_writer() {
    let directory = directory();
    let store = super::open(&file(&directory)).await.expect("opens");
    let mut tx = store
        .writing("be interrupted")
        .await
        .expect("nobody else writes");
    // As on a full disk: the transaction is gone, and the driver has not heard of it.
    tx.end_unseen().await;
    drop(tx);
    let appended = store
        .append_events(host_id(), spool(1), vec![event(1)])
        .await;
    assert_eq!(appended.expect("the writer is a new one").stored, 1);
}

fn host_id() -> domain::id::HostId {
    domain::id::HostId::new(crate::db::conformance::uuid(5))
}

#[tokio::test]
async fn a_database_that_another_process_locks_is_busy() {
    let directory = directory();
    let path = file(&directory);
    let store = open_with(&path, &[("busy_timeout", "50")], MIGRATIONS)
        .await
        .expect("opens");
    let other = super::open(&path).await.expect("opens");
    let lock = other
        .writing("hold the lock")
        .await
        .expect("nobody else writes");
    let busy = store
        .append_events(host_id(), spool(1), vec![event(1)])
        .await;
    assert!(matches!(busy, Err(StoreError::Busy { .. })), "{busy:?}");
    drop(lock);
    let appended = store
        .append_events(host_id(), spool(1), vec![event(1)])
        .await;
    assert_eq!(appended.expect("the lock is gone").stored, 1);
}

#[tokio::test]
async fn refuses_a_database_of_a_newer_release_and_leaves_it() {
    let directory = directory();
    let path = file(&directory);
    alter(&path, "PRAGMA user_version = 99").await;
    let before = fs::read(&path).expect("it is readable");
    match super::open(&path).await {
        Err(OpenError::Newer {
            found: 99, known, ..
        }) => {
            assert_eq!(usize::try_from(known), Ok(MIGRATIONS.len()));
        }
        other => panic!("{other:?}"),
    }
    assert!(
        fs::read(&path).expect("it is readable") == before,
        "the file was altered"
    );
}

#[tokio::test]
async fn refuses_a_damaged_or_foreign_file_and_leaves_it() {
    let directory = directory();
    let garbage = directory.path().join("garbage.db");
    fs::write(&garbage, vec![0x5a; 20_000]).expect("written");
    let refused = super::open(&garbage).await;
    assert!(
        matches!(refused, Err(OpenError::Damaged { .. })),
        "{refused:?}"
    );
    assert_eq!(
        fs::read(&garbage).expect("it is readable"),
        vec![0x5a; 20_000]
    );

    let foreign = directory.path().join("foreign.db");
    alter(&foreign, "PRAGMA application_id = 7").await;
    let refused = super::open(&foreign).await;
    assert!(
        matches!(refused, Err(OpenError::Foreign { .. })),
        "{refused:?}"
    );

    let nowhere = directory.path().join("missing").join("master.db");
    let refused = super::open(&nowhere).await;
    assert!(
        matches!(refused, Err(OpenError::File { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn nobody_else_can_read_its_files() {
    let directory = directory();
    let path = file(&directory);
    fs::write(&path, b"").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
    let _store = open(&path).await;
    for name in ["master.db", "master.db-wal", "master.db-shm"] {
        let mode = fs::metadata(directory.path().join(name))
            .expect("it is there")
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn an_older_database_is_brought_up_in_place() {
    let directory = directory();
    let path = file(&directory);
    // As the first release left it.
    let old = open_with(&path, &[], &MIGRATIONS[..3])
        .await
        .expect("a new database opens");
    for number in ["1", "2"] {
        sqlx::query(
            "INSERT INTO audit (at, actor, action, subject, detail) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(7_i64)
        .bind("reconciler")
        .bind("a.b")
        .bind(number)
        .bind("")
        .execute(writer(&old))
        .await
        .expect("written");
    }
    old.close().await;

    let store = open(&path).await;
    let intact = |entries| AuditChain::Intact { entries };
    assert_eq!(store.verify_audit().await.expect("answered"), intact(2));
    // The chain begins with what is written next, and vouches for what is before it.
    let edge = enrolled(&store, 1, "edge").await;
    assert_eq!(store.verify_audit().await.expect("answered"), intact(4));
    store
        .append_events(edge, spool(1), vec![event(1)])
        .await
        .expect("stored");
    drop(store);
    let forged = "DROP TRIGGER audit_keeps_its_words; UPDATE audit SET detail = 'x' WHERE row = 1";
    alter(&path, forged).await;
    let store = open(&path).await;
    let broken = AuditChain::Broken { row: 3 };
    assert_eq!(store.verify_audit().await.expect("answered"), broken);
}

#[tokio::test]
async fn an_audit_that_was_altered_or_cut_is_found_out() {
    for (sql, verdict) in [
        (
            "UPDATE audit SET detail = 'x' WHERE row = 4",
            AuditChain::Broken { row: 5 },
        ),
        (
            "DELETE FROM audit WHERE row = 4",
            AuditChain::Broken { row: 5 },
        ),
        (
            "UPDATE audit SET previous = NULL WHERE row = 4",
            AuditChain::Broken { row: 4 },
        ),
        (
            "UPDATE audit SET actor = 'operator:bob' WHERE row = 7",
            AuditChain::Cut { entries: 7 },
        ),
        (
            "DELETE FROM audit WHERE row > 5",
            AuditChain::Cut { entries: 5 },
        ),
    ] {
        let directory = directory();
        let path = file(&directory);
        let store = open(&path).await;
        for number in 0..7 {
            store.audit(entry(number)).await.expect("written");
        }
        drop(store);
        alter(
            &path,
            "DROP TRIGGER audit_keeps_its_words; DROP TRIGGER audit_keeps_its_rows",
        )
        .await;
        alter(&path, sql).await;
        let store = open(&path).await;
        let found = store.verify_audit().await.expect("answered");
        assert_eq!(found, verdict, "{sql}");
    }
}

#[tokio::test]
async fn a_topology_is_as_many_statements_whatever_its_size() {
    let directory = directory();
    let metrics = Arc::new(Metrics::default());
    let store = super::open(&file(&directory)).await.expect("opens");
    let store = store.counted_in(Arc::clone(&metrics));
    races::a_topology_is_as_many_statements_whatever_its_size(&store, &metrics).await;
}

#[tokio::test]
async fn the_audit_log_cannot_be_rewritten() {
    let directory = directory();
    let store = super::open(&file(&directory)).await.expect("opens");
    let entry = AuditEntry {
        at: at(0),
        actor: operator(),
        action: "a.b".to_owned(),
        subject: String::new(),
        detail: String::new(),
    };
    store.audit(entry).await.expect("written");
    for sql in ["DELETE FROM audit", "UPDATE audit SET detail = 'x'"] {
        let refused = sqlx::query(sql)
            .execute(writer(&store))
            .await
            .expect_err("it is refused");
        assert!(refused.to_string().contains("append-only"), "{refused}");
    }
}

#[tokio::test]
async fn readers_cannot_write() {
    let directory = directory();
    let store = super::open(&file(&directory)).await.expect("opens");
    let refused = sqlx::query("DELETE FROM tokens")
        .execute(reader(&store))
        .await;
    assert!(
        refused
            .expect_err("it is refused")
            .to_string()
            .contains("readonly")
    );
}

fn steps(database: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/db/migrations")
        .join(database);
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| {
            entry
                .expect("it is readable")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn steps_of_both_schemas_are_the_same_without_a_gap_and_all_are_run() {
    let names = steps("sqlite");
    // A number names the same schema on both, so that what one holds can be moved to the other.
    assert_eq!(names, steps("postgres"));
    assert_eq!(names.len(), postgres::MIGRATIONS.len());
    for (number, name) in (1..).zip(&names) {
        assert!(
            name.starts_with(&format!("{number:04}_")),
            "{name} is not step {number}"
        );
    }
    assert_eq!(names.len(), MIGRATIONS.len());
}

#[tokio::test]
async fn the_schema_is_the_one_in_the_golden() {
    let directory = directory();
    let store = super::open(&file(&directory)).await.expect("opens");
    let parts: Vec<String> = sqlx::query_scalar(
        "SELECT sql || ';' FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'
         ORDER BY tbl_name, type DESC, name",
    )
    .fetch_all(reader(&store))
    .await
    .expect("the schema is readable");
    insta::with_settings!(
        { snapshot_path => "..", prepend_module_to_snapshot => false, omit_expression => true },
        { insta::assert_snapshot!("schema.sqlite", parts.join("\n\n")); }
    );
}
