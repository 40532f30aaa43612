use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use domain::event::Payload;
use domain::id::{BootId, DeckyId, TopologyId};
use pki::clock::Clock;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const ROOMY: Bounds = Bounds {
    bytes: 1 << 30,
    events: 1_000_000,
};

fn clock() -> Clock {
    Arc::new(|| NOW)
}

async fn open(directory: &Path, bounds: Bounds) -> Spool {
    let notices = Arc::new(Notices::new(clock()));
    Spool::open(directory, bounds, notices, NOW)
        .await
        .expect("a writable directory")
}

fn fresh() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

fn decky(number: u128) -> DeckyId {
    DeckyId::new(Uuid::from_u128(number))
}

fn event(decky_number: u128, class: Class, text: &str) -> NewEvent {
    NewEvent {
        topology: TopologyId::new(Uuid::from_u128(1)),
        decky: decky(decky_number),
        collected_at: NOW,
        class,
        line: Bytes::copy_from_slice(text.as_bytes()),
    }
}

fn evidence(text: &str) -> NewEvent {
    event(1, Class::Evidence, text)
}

fn numbered(range: std::ops::Range<u32>) -> Vec<NewEvent> {
    range.map(|number| evidence(&number.to_string())).collect()
}

async fn all(spool: &Spool) -> Vec<SpooledEvent> {
    spool
        .read(0, usize::MAX >> 1, usize::MAX)
        .await
        .expect("readable")
}

async fn texts(spool: &Spool) -> Vec<String> {
    all(spool)
        .await
        .iter()
        .map(|event| String::from_utf8_lossy(&event.line).into_owned())
        .collect()
}

/// The counts of the `dropped` notices, by decky.
async fn dropped(spool: &Spool) -> BTreeMap<DeckyId, u64> {
    let mut counts = BTreeMap::new();
    for event in all(spool).await {
        let Ok(line) = proto::line::decode(&event.line) else {
            continue;
        };
        if let Payload::Lifecycle { state, count, .. } = line.sighting.payload
            && state == "dropped"
        {
            *counts.entry(event.decky).or_default() += count;
        }
    }
    counts
}

#[tokio::test]
async fn events_are_numbered_from_one_and_read_in_order() {
    let directory = fresh();
    let spool = open(directory.path(), ROOMY).await;
    spool.append(&numbered(0..150), &[]).await.expect("room");
    spool.append(&numbered(150..160), &[]).await.expect("room");

    let read = all(&spool).await;
    let numbers: Vec<_> = read.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (1..=160).collect::<Vec<_>>());
    assert!(
        read.iter()
            .enumerate()
            .all(|(at, event)| event.line == at.to_string())
    );

    let some = spool.read(100, 5, usize::MAX).await.expect("readable");
    assert_eq!(
        some.iter().map(|event| event.sequence).collect::<Vec<_>>(),
        [101, 102, 103, 104, 105]
    );
    let few = spool.read(0, 100, 3).await.expect("readable");
    assert_eq!(few.len(), 3);
    let one = spool.read(20, 100, 1).await.expect("readable");
    assert_eq!(
        one.len(),
        1,
        "an event that is larger than the limit is still read"
    );
}

#[tokio::test]
async fn what_is_acknowledged_is_gone_and_its_numbers_are_never_used_again() {
    let directory = fresh();
    let spool = open(directory.path(), ROOMY).await;
    let id = spool.id();
    spool.append(&numbered(0..10), &[]).await.expect("room");
    spool.ack(10).await.expect("writable");
    assert!(all(&spool).await.is_empty());
    let empty = *spool.figures().borrow();
    assert_eq!(
        (empty.events, empty.bytes, empty.acked, empty.last),
        (0, 0, 10, 10)
    );
    spool.close().await.expect("closable");

    let spool = open(directory.path(), ROOMY).await;
    assert_eq!(spool.id(), id);
    spool.append(&numbered(10..11), &[]).await.expect("room");
    assert_eq!(all(&spool).await[0].sequence, 11);
    spool.ack(3).await.expect("an old receipt changes nothing");
    spool
        .ack(99)
        .await
        .expect("no more is acknowledged than there is");
    assert_eq!(spool.figures().borrow().acked, 11);
}

#[tokio::test]
async fn a_process_that_dies_without_closing_loses_nothing() {
    let directory = fresh();
    let spool = open(directory.path(), ROOMY).await;
    let mark = Mark {
        handle: Handle::new("c1"),
        boot: Some(BootId::new(Uuid::from_u128(5))),
        counter: u64::MAX,
        at: NOW + time::Duration::nanoseconds(1_234_567_891),
        config: "abc".to_owned(),
    };
    let raw = Mark {
        boot: None,
        counter: 3,
        ..mark.clone()
    };
    let marks = [mark.clone(), raw.clone()];
    spool.append(&numbered(0..600), &marks).await.expect("room");
    spool.ack(200).await.expect("writable");
    // What SIGKILL leaves: the files as they are at this moment, the log not folded in.
    let after = fresh();
    for file in ["spool.db", "spool.db-wal"] {
        std::fs::copy(directory.path().join(file), after.path().join(file)).expect("copied");
    }

    let again = open(after.path(), ROOMY).await;
    assert_eq!(again.id(), spool.id());
    assert_eq!(*again.figures().borrow(), *spool.figures().borrow());
    assert_eq!(texts(&again).await, texts(&spool).await);
    let mut stored = again.marks(&mark.handle).await.expect("readable");
    stored.sort_by_key(|mark| mark.boot);
    assert_eq!(stored, [raw, mark]);
}

#[tokio::test]
async fn a_mark_moves_on_with_the_events_that_it_belongs_to() {
    let directory = fresh();
    let spool = open(directory.path(), ROOMY).await;
    let mark = |counter| Mark {
        handle: Handle::new("c1"),
        boot: Some(BootId::new(Uuid::from_u128(5))),
        counter,
        at: NOW,
        config: String::new(),
    };
    spool
        .append(&numbered(0..1), &[mark(1)])
        .await
        .expect("room");
    spool
        .append(&numbered(1..2), &[mark(2)])
        .await
        .expect("room");
    assert_eq!(
        spool.marks(&Handle::new("c1")).await.expect("readable"),
        [mark(2)]
    );
    assert_eq!(spool.marks(&Handle::new("c2")).await.expect("readable"), []);
}

fn mark_of(handle: &str, life: u128, counter: u64) -> Mark {
    Mark {
        handle: Handle::new(handle),
        boot: Some(BootId::new(Uuid::from_u128(life))),
        counter,
        at: NOW,
        config: String::new(),
    }
}

#[tokio::test]
async fn a_mark_is_kept_however_old_it_seems_and_wherever_the_clock_stands() {
    let directory = fresh();
    let spool = open(directory.path(), ROOMY).await;
    // As of a native decky, whose places are told from when it was made.
    let mark = mark_of("made years ago", 1, 7);
    spool
        .append(&numbered(0..1), std::slice::from_ref(&mark))
        .await
        .expect("room");
    spool.close().await.expect("closable");
    for years in [10, -10, 200] {
        let notices = Arc::new(Notices::new(clock()));
        let now = NOW + time::Duration::days(365 * years);
        let spool = Spool::open(directory.path(), ROOMY, notices, now)
            .await
            .expect("a sound spool");
        let kept = spool.marks(&mark.handle).await.expect("readable");
        assert_eq!(kept, std::slice::from_ref(&mark), "{years} years on");
        spool.close().await.expect("closable");
    }
}

#[tokio::test]
async fn the_marks_that_were_not_stored_again_for_longest_are_forgotten_first() {
    let directory = fresh();
    let spool = open(directory.path(), ROOMY).await;
    let all = usize::try_from(MARKS).expect("it is few");
    let marks: Vec<_> = (0..all + 1)
        .map(|number| mark_of(&number.to_string(), 1, 1))
        .collect();
    spool.append(&[], &marks).await.expect("room");
    // The oldest decky still speaks.
    spool
        .append(&[], &[mark_of("0", 1, 2)])
        .await
        .expect("room");
    spool.close().await.expect("closable");

    let spool = open(directory.path(), ROOMY).await;
    for (handle, kept) in [("0", vec![2]), ("1", vec![]), ("2", vec![1])] {
        let marks = spool.marks(&Handle::new(handle)).await.expect("readable");
        let counters: Vec<_> = marks.iter().map(|mark| mark.counter).collect();
        assert_eq!(counters, kept, "{handle}");
    }
}

#[tokio::test]
async fn only_the_latest_lives_of_a_decky_have_marks() {
    let directory = fresh();
    let spool = open(directory.path(), ROOMY).await;
    let raw = Mark {
        boot: None,
        ..mark_of("c1", 0, 77)
    };
    let other = mark_of("c2", 1, 1);
    spool
        .append(&[], &[raw.clone(), other.clone()])
        .await
        .expect("room");
    // More in one batch than are kept, and more batches.
    for batch in 0..20 {
        let lives = batch * 100..batch * 100 + 100;
        let marks: Vec<_> = lives.map(|life| mark_of("c1", life, 1)).collect();
        spool.append(&[], &marks).await.expect("room");
        spool
            .append(
                &[],
                &[mark_of("c1", 0, u64::try_from(batch).expect("few") + 2)],
            )
            .await
            .expect("room");
    }
    let marks = spool.marks(&raw.handle).await.expect("readable");
    let mut wanted = vec![raw];
    wanted.extend((1985..2000).map(|life| mark_of("c1", life, 1)));
    wanted.push(mark_of("c1", 0, 21));
    assert_eq!(marks, wanted);
    assert_eq!(spool.marks(&other.handle).await.expect("readable"), [other]);
}

#[tokio::test]
async fn a_spool_of_the_first_form_is_taken_over_with_all_that_is_in_it() {
    let directory = fresh();
    let id = Uuid::from_u128(9);
    let mut old = SqliteConnectOptions::new()
        .filename(directory.path().join(FILE))
        .create_if_missing(true)
        .connect()
        .await
        .expect("a writable directory");
    sqlx::raw_sql(schema::FORMS[0])
        .execute(&mut old)
        .await
        .expect("its form");
    sqlx::query("INSERT INTO spool VALUES (1, ?, 1, 0, 1, 97, 0)")
        .bind(id.as_bytes().to_vec())
        .execute(&mut old)
        .await
        .expect("its header");
    sqlx::query("INSERT INTO events VALUES (1, ?, ?, 0, 0, 0, x'78')")
        .bind(Uuid::from_u128(1).as_bytes().to_vec())
        .bind(Uuid::from_u128(1).as_bytes().to_vec())
        .execute(&mut old)
        .await
        .expect("an event");
    let (late, early) = (mark_of("c1", 1, 5), mark_of("c1", 2, 3));
    let forged: Vec<_> = (100..200).map(|life| mark_of("c2", life, 1)).collect();
    let forged_at = forged.iter().zip(100_i64..);
    for (mark, at) in [(&late, 2_000_i64), (&early, 1_000)]
        .into_iter()
        .chain(forged_at)
    {
        let boot = mark.boot.expect("a life").uuid();
        sqlx::query("INSERT INTO marks VALUES (?, ?, ?, ?, 'no digest')")
            .bind(mark.handle.as_str())
            .bind(boot.as_bytes().to_vec())
            .bind(mark.counter.cast_signed())
            .bind(at)
            .execute(&mut old)
            .await
            .expect("a mark");
    }
    old.close().await.expect("closable");

    let spool = open(directory.path(), ROOMY).await;
    assert_eq!(spool.id(), SpoolId::new(id));
    assert_eq!(texts(&spool).await, ["x"]);
    let at = |nanos| NOW + time::Duration::nanoseconds(nanos);
    let marks = [
        Mark {
            at: at(1_000),
            ..early
        },
        Mark {
            at: at(2_000),
            ..late
        },
    ];
    assert_eq!(
        spool.marks(&marks[0].handle).await.expect("readable"),
        marks
    );
    let forged = spool.marks(&Handle::new("c2")).await.expect("readable");
    assert_eq!(forged.len(), LIVES);
    assert_eq!(forged[LIVES - 1].boot, mark_of("c2", 199, 1).boot);
    spool.append(&numbered(2..3), &[]).await.expect("room");
    assert_eq!(all(&spool).await[1].sequence, 2);
    spool.close().await.expect("closable");
    let again = open(directory.path(), ROOMY).await;
    assert_eq!(again.id(), SpoolId::new(id));
}

#[tokio::test]
async fn a_full_spool_drops_the_oldest_noise_first_and_counts_it() {
    let directory = fresh();
    let spool = open(
        directory.path(),
        Bounds {
            bytes: 1 << 30,
            events: 100,
        },
    )
    .await;
    let mut events = Vec::new();
    for number in 0..60 {
        events.push(event(1, Class::Evidence, &format!("e{number}")));
        events.push(event(2 + number % 2, Class::Noise, &format!("n{number}")));
    }
    let gone = spool.append(&events, &[]).await.expect("room is made");

    // 120 went in, 95 may stay, and the two accounts come on top of them.
    assert_eq!(gone, 25);
    assert_eq!(
        dropped(&spool).await,
        BTreeMap::from([(decky(2), 13), (decky(3), 12)])
    );
    let left = texts(&spool).await;
    assert_eq!(left.iter().filter(|text| text.starts_with('e')).count(), 60);
    assert!(!left.contains(&"n24".to_owned()));
    assert!(left.contains(&"n25".to_owned()));
    let figures = *spool.figures().borrow();
    assert_eq!(figures.events, u64::try_from(left.len()).expect("few"));
    assert_eq!(figures.dropped, 25);
}

#[tokio::test]
async fn without_noise_the_oldest_evidence_goes_and_accounts_are_merged_and_kept() {
    let directory = fresh();
    let bounds = Bounds {
        bytes: 100 * (ROW_COST + 1),
        events: 1000,
    };
    let spool = open(directory.path(), bounds).await;
    let mut total = 0;
    for _ in 0..20 {
        total += 40;
        spool
            .append(&vec![event(1, Class::Evidence, "x"); 40], &[])
            .await
            .expect("room is made");
    }
    let figures = *spool.figures().borrow();
    let left = all(&spool).await;
    let kept = left.iter().filter(|event| event.line == "x").count();
    // Every event is there, or counted; and one account says it all.
    assert_eq!(
        dropped(&spool).await[&decky(1)] + u64::try_from(kept).expect("few"),
        total
    );
    assert_eq!(left.len(), kept + 1);
    assert!(figures.bytes <= bounds.bytes + 1000, "{figures:?}");
    let sum: usize = left.iter().map(|event| event.line.len()).sum();
    let rows = u64::try_from(left.len()).expect("few");
    assert_eq!(
        figures.bytes,
        rows * ROW_COST + u64::try_from(sum).expect("small")
    );
}

#[tokio::test]
async fn what_the_master_may_already_have_is_not_dropped() {
    let directory = fresh();
    let spool = open(
        directory.path(),
        Bounds {
            bytes: 1 << 30,
            events: 100,
        },
    )
    .await;
    spool
        .append(&vec![event(1, Class::Noise, "shown"); 80], &[])
        .await
        .expect("room");
    spool.sync(80).await.expect("a disk");
    spool
        .append(&vec![event(1, Class::Noise, "new"); 40], &[])
        .await
        .expect("room is made");
    let left = texts(&spool).await;
    assert_eq!(left.iter().filter(|text| *text == "shown").count(), 80);
    assert_eq!(dropped(&spool).await[&decky(1)], 25);
}

#[tokio::test]
async fn a_damaged_spool_is_moved_aside_and_a_new_one_begins() {
    for damage in [
        b"not a database at all, but long enough".to_vec(),
        Vec::new(),
    ] {
        let directory = fresh();
        let first = open(directory.path(), ROOMY).await;
        let id = first.id();
        first.append(&numbered(0..5000), &[]).await.expect("room");
        first.close().await.expect("closable");
        let path = directory.path().join(FILE);
        if damage.is_empty() {
            // The head is sound, the tree behind it is not.
            let mut bytes = std::fs::read(&path).expect("readable");
            let half = bytes.len() / 2;
            bytes[half..].fill(0xaa);
            std::fs::write(&path, bytes).expect("writable");
        } else {
            std::fs::write(&path, &damage).expect("writable");
        }

        let second = open(directory.path(), ROOMY).await;
        assert_ne!(second.id(), id);
        assert!(all(&second).await.is_empty());
        second.append(&numbered(0..1), &[]).await.expect("room");
        assert_eq!(all(&second).await[0].sequence, 1);
        assert!(directory.path().join("spool.db.damaged-0").exists());
    }
}

#[tokio::test]
async fn a_full_disk_refuses_the_whole_batch_and_takes_it_later() {
    let directory = fresh();
    let spool = open(directory.path(), ROOMY).await;
    spool.append(&numbered(0..10), &[]).await.expect("room");
    spool.limit_pages(20).await;
    let before = *spool.figures().borrow();
    let big = vec![evidence(&"x".repeat(10_000)); 50];
    let refused = spool.append(&big, &[]).await.expect_err("no room");
    assert!(matches!(refused, SpoolError::Full { .. }), "{refused:?}");
    assert_eq!(*spool.figures().borrow(), before);
    assert_eq!(all(&spool).await.len(), 10);

    spool.limit_pages(1_000_000).await;
    spool.append(&big, &[]).await.expect("room again");
    assert_eq!(all(&spool).await.len(), 60);
}

#[tokio::test]
async fn peeking_shows_the_figures_and_writes_nothing() {
    let directory = fresh();
    assert_eq!(
        Spool::peek(directory.path())
            .await
            .expect("no spool is no error"),
        None
    );
    let spool = open(directory.path(), ROOMY).await;
    spool.append(&numbered(0..7), &[]).await.expect("room");
    let live = Spool::peek(directory.path())
        .await
        .expect("readable")
        .expect("there");
    assert_eq!(live, *spool.figures().borrow());
    spool.close().await.expect("closable");

    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(directory.path())
            .expect("readable")
            .map(|entry| entry.expect("readable").file_name())
            .collect();
        names.sort();
        names
    };
    let before = names();
    let closed = Spool::peek(directory.path())
        .await
        .expect("readable")
        .expect("there");
    assert_eq!(closed.events, 7);
    assert_eq!(names(), before);
}

#[tokio::test]
async fn a_flood_in_large_batches_is_kept_whole() {
    let directory = fresh();
    let spool = open(directory.path(), ROOMY).await;
    let line = "x".repeat(300);
    let batch = vec![evidence(&line); 512];
    for _ in 0..40 {
        spool.append(&batch, &[]).await.expect("room");
    }
    let figures = *spool.figures().borrow();
    assert_eq!((figures.events, figures.dropped), (40 * 512, 0));
}

#[tokio::test]
async fn a_short_disk_bounds_the_spool_tighter_and_costs_noise_first() {
    let directory = fresh();
    let bounds = Bounds {
        bytes: 1 << 30,
        events: 400,
    };
    let spool = open(directory.path(), bounds).await;
    let mut mixed = Vec::new();
    for number in 0..50_u32 {
        mixed.push(event(1, Class::Evidence, &format!("evidence {number}")));
        mixed.push(event(2, Class::Noise, &format!("noise {number}")));
        mixed.push(event(2, Class::Noise, &format!("more noise {number}")));
    }
    spool.append(&mixed, &[]).await.expect("room");
    assert_eq!(spool.press(Pressure::None, NOW).await.expect("room"), 0);

    // A quarter of 400, and a little less, so that the next event has room.
    let gone = spool.press(Pressure::Short, NOW).await.expect("room");
    assert_eq!(gone, 150 - 95);
    assert_eq!(dropped(&spool).await, BTreeMap::from([(decky(2), gone)]));
    let said = texts(&spool).await;
    let kept = said.iter().filter(|text| text.starts_with("evidence"));
    assert_eq!(kept.count(), 50, "no evidence went");
    assert!(
        said.iter()
            .any(|text| text.contains("the disk of the host was short of space")),
        "{said:?}"
    );

    // It stays so for what comes; and when hardly anything is left, evidence goes, too.
    spool.append(&numbered(0..40), &[]).await.expect("room");
    assert!(spool.figures().borrow().events <= 100 + 1);
    spool.press(Pressure::Dire, NOW).await.expect("room");
    assert!(spool.figures().borrow().events <= 25 + 2);
    assert_eq!(
        dropped(&spool).await.values().sum::<u64>(),
        spool.figures().borrow().dropped,
        "everything that went is accounted for"
    );

    // As it was.
    spool.press(Pressure::None, NOW).await.expect("room");
    spool.append(&numbered(0..300), &[]).await.expect("room");
    assert!(spool.figures().borrow().events > 300);
}
