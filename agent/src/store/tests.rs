use tempfile::TempDir;
use uuid::Uuid;

use super::*;

fn directory() -> TempDir {
    tempfile::tempdir().expect("the temporary directory is writable")
}

fn held() -> Held {
    Held {
        topology: TopologyId::new(Uuid::max()),
        hash: VersionHash::new([7; 32]),
        hydrated: Bytes::from_static(b"{}"),
    }
}

fn at() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).expect("it is in range")
}

fn states() -> Vec<AppliedState> {
    let reason = ApplyFailure {
        code: FailureCode::PortTaken,
        message: "port 22: taken by sshd".to_owned(),
    };
    vec![
        AppliedState::Idle,
        AppliedState::Clearing,
        AppliedState::Applying(held()),
        AppliedState::Applied {
            held: held(),
            at: at(),
        },
        AppliedState::Failed {
            held: Some(held()),
            reason: reason.clone(),
            at: at(),
        },
        AppliedState::Failed {
            held: None,
            reason,
            at: at(),
        },
    ]
}

async fn open(path: &Path) -> Store {
    Store::open(path).await.expect("the disk is there")
}

#[tokio::test]
async fn every_state_survives_a_restart() {
    let directory = directory();
    let path = directory.path().join("agent.db");
    assert_eq!(
        open(&path).await.load().await.expect("it is new"),
        Row::EMPTY
    );
    for (number, state) in (1_u64..).zip(states()) {
        let row = Row {
            fence: Fence::new(3, u64::MAX - number),
            state,
        };
        let store = open(&path).await;
        store.save(&row).await.expect("the disk has room");
        store.close().await;
        assert_eq!(open(&path).await.load().await.expect("it was written"), row);
    }
}

#[tokio::test]
async fn an_unreadable_file_is_moved_aside_and_the_agent_is_idle() {
    let directory = directory();
    let path = directory.path().join("agent.db");
    for number in 1..=2 {
        std::fs::write(
            &path,
            b"this is no database, but it is long enough to look like one ".repeat(99),
        )
        .expect("the disk is there");
        let store = open(&path).await;
        assert_eq!(store.load().await.expect("it is new"), Row::EMPTY);
        store.close().await;
        assert!(
            directory
                .path()
                .join(format!("agent.db.corrupt-{number}"))
                .exists()
        );
    }
}

#[tokio::test]
async fn a_store_of_another_release_keeps_its_fence_and_nothing_else() {
    let directory = directory();
    let path = directory.path().join("agent.db");
    let store = open(&path).await;
    let fence = Fence::new(2, 9);
    let row = Row {
        fence,
        state: AppliedState::Applied {
            held: held(),
            at: at(),
        },
    };
    store.save(&row).await.expect("the disk has room");
    for text in [
        "ALTER TABLE agent DROP COLUMN hydrated",
        "PRAGMA user_version = 77",
    ] {
        sqlx::query(text)
            .execute(&store.pool)
            .await
            .expect("it is SQL");
    }
    store.close().await;

    let row = open(&path).await.load().await.expect("it was migrated");
    assert_eq!(
        row,
        Row {
            fence,
            state: AppliedState::Idle
        }
    );
}

#[tokio::test]
async fn a_row_that_says_what_cannot_be_keeps_its_fence() {
    let directory = directory();
    let path = directory.path().join("agent.db");
    let store = open(&path).await;
    let fence = Fence::new(1, 4);
    let row = Row {
        fence,
        state: AppliedState::Applied {
            held: held(),
            at: at(),
        },
    };
    for damage in [
        "phase = 'sideways'",
        "hash = NULL",
        "at = NULL",
        "topology_id = 'x'",
    ] {
        store.save(&row).await.expect("the disk has room");
        sqlx::query(sqlx::AssertSqlSafe(format!("UPDATE agent SET {damage}")))
            .execute(&store.pool)
            .await
            .expect("it is SQL");
        let read = store.load().await.expect("it can be read");
        assert_eq!(
            read,
            Row {
                fence,
                state: AppliedState::Idle
            },
            "{damage}"
        );
    }
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_named() {
    let directory = directory();
    let path = directory.path().join("missing").join("agent.db");
    let error = Store::open(&path).await.expect_err("there is no directory");
    assert!(matches!(error, StoreError::Open { path: named, .. } if named == path));
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_the_old_row_stays() {
    let directory = directory();
    let path = directory.path().join("agent.db");
    let store = open(&path).await;
    let before = Row {
        fence: Fence::new(1, 1),
        state: AppliedState::Clearing,
    };
    store.save(&before).await.expect("the disk has room");
    store.fill().await;
    let large = Held {
        hydrated: vec![b'x'; 1024 * 1024].into(),
        ..held()
    };
    let row = Row {
        fence: Fence::new(1, 2),
        state: AppliedState::Applying(large),
    };
    let error = store.save(&row).await.expect_err("there is no room");
    assert!(matches!(error, StoreError::Save(_)));
    assert_eq!(store.load().await.expect("it can be read"), before);
}
