use std::io::Write as _;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const MADE: u64 = 1_700_000_000_000_000;

/// Files of one decky, written as its process would.
struct Desk {
    directory: TempDir,
    outputs: Arc<Outputs>,
    process: File,
    sender: watch::Sender<u64>,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let outputs = Arc::new(Outputs::in_directory(directory.path().to_owned()));
        let process = outputs.open_for_process("a").expect("the disk is there");
        Self {
            directory,
            outputs,
            process,
            sender: watch::Sender::new(0),
        }
    }

    /// As if the agent had been started anew.
    fn again(&mut self) {
        self.outputs = Arc::new(Outputs::in_directory(self.directory.path().to_owned()));
    }

    fn write(&mut self, text: &str) {
        self.process
            .write_all(text.as_bytes())
            .expect("the disk is there");
        self.sender.send_modify(|count| *count += 1);
    }

    fn write_lines(&mut self, numbers: std::ops::Range<u64>) {
        let text: String = numbers.map(|number| format!("{number:0>1000}\n")).collect();
        self.write(&text);
    }

    async fn lines(&self, since: Option<OffsetDateTime>) -> Vec<OutputLine> {
        let following = Following {
            outputs: Arc::clone(&self.outputs),
            handle: "a".to_owned(),
            made: MADE,
            process: None,
            changed: self.sender.subscribe(),
            attempt: "could not follow".to_owned(),
        };
        let lines = lines(following, since).await.expect("the files are there");
        lines
            .map(|line| line.expect("the disk is there"))
            .collect()
            .await
    }

    async fn numbers(&self, since: Option<OffsetDateTime>) -> Vec<u64> {
        let parse = |line: OutputLine| {
            let text = std::str::from_utf8(&line.line).expect("tests write text");
            text.parse().expect("tests write numbers")
        };
        self.lines(since).await.into_iter().map(parse).collect()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).expect("the disk is there");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("the disk is there").file_name())
            .map(|name| name.into_string().expect("names are text"))
            .collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn a_line_is_found_again_by_its_place() {
    let mut desk = Desk::new();
    desk.write_lines(0..10);
    let all = desk.lines(None).await;
    assert_eq!(all.len(), 10);
    assert!(all.is_sorted_by_key(|line| line.at));
    let from = desk.lines(Some(all[4].at)).await;
    assert_eq!(from, all[4..]);
}

#[tokio::test]
async fn a_large_file_is_emptied_once_it_is_read_and_nothing_is_lost() {
    let mut desk = Desk::new();
    desk.write_lines(0..9_000);
    let first = desk.lines(None).await;
    assert_eq!(first.len(), 9_000);
    assert_eq!(
        fs::metadata(desk.outputs.file("a"))
            .expect("it is there")
            .len(),
        0
    );
    desk.write_lines(9_000..9_010);
    desk.again();
    // What was cut is there for whoever had not stored it yet.
    let rest = desk.numbers(Some(first[8_990].at)).await;
    assert_eq!(rest, (8_990..9_010).collect::<Vec<_>>());
    desk.write_lines(9_010..18_100);
    let rest = desk.numbers(Some(first[8_999].at)).await;
    assert_eq!(rest, (8_999..18_100).collect::<Vec<_>>());
    assert_eq!(
        desk.files().len(),
        2,
        "one old one is kept: {:?}",
        desk.files()
    );
}

#[tokio::test]
async fn a_kill_between_copy_and_cut_is_seen_afterwards() {
    let mut desk = Desk::new();
    desk.write_lines(0..9_000);
    let first = desk.lines(None).await;
    desk.write_lines(9_000..18_000);
    // The copy is there under its last name, the one before is not removed, the file not emptied.
    let place = 18_000 * 1_001;
    let copy = desk.directory.path().join(format!("a.old-{place:020}"));
    fs::copy(desk.outputs.file("a"), &copy).expect("the disk is there");
    desk.write_lines(18_000..18_010);
    desk.again();
    let rest = desk.numbers(Some(first[8_000].at)).await;
    assert_eq!(rest, (8_000..18_010).collect::<Vec<_>>());

    // And the same when nothing was there before.
    let mut desk = Desk::new();
    desk.write_lines(0..9_000);
    let copy = desk
        .directory
        .path()
        .join(format!("a.old-{:020}", 9_000 * 1_001));
    fs::copy(desk.outputs.file("a"), &copy).expect("the disk is there");
    desk.again();
    assert_eq!(desk.numbers(None).await, (0..9_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_cut_that_was_interrupted_is_made_anew_and_never_under_a_line_that_is_written() {
    let mut desk = Desk::new();
    desk.write_lines(0..9_000);
    desk.lines(None).await;
    desk.write_lines(9_000..18_000);
    // The copy is there under its last name, the one before is gone, the file not emptied: a kill
    // came before the file was.
    let copy = desk
        .directory
        .path()
        .join(format!("a.old-{:020}", 18_000 * 1_001));
    fs::copy(desk.outputs.file("a"), &copy).expect("the disk is there");
    let before = desk
        .directory
        .path()
        .join(format!("a.old-{:020}", 9_000 * 1_001));
    fs::remove_file(before).expect("it was cut once");

    flock(&desk.process, FlockOperation::LockShared).expect("nobody else has it");
    for _ in 0..2 {
        desk.again();
        assert_eq!(
            desk.numbers(None).await,
            (9_000..18_000).collect::<Vec<_>>()
        );
    }
    let length = |desk: &Desk| {
        let file = fs::metadata(desk.outputs.file("a"));
        file.expect("it is there").len()
    };
    assert_eq!(length(&desk), 9_000 * 1_001);
    desk.write_lines(18_000..18_010);
    flock(&desk.process, FlockOperation::Unlock).expect("it is held");
    desk.again();
    let all = desk.lines(None).await;
    assert_eq!(all.len(), 9_010);
    // Cut now, and at the place that only the copy knew.
    assert_eq!(length(&desk), 0);
    desk.write_lines(18_010..18_020);
    desk.again();
    let rest = desk.numbers(Some(all[9_000].at)).await;
    assert_eq!(rest, (18_000..18_020).collect::<Vec<_>>());
    assert_eq!(all[0].at, time_of(9_000 * 1_001, MADE));
    assert_eq!(desk.files().len(), 2, "{:?}", desk.files());
}

#[tokio::test]
async fn what_comes_later_is_followed_until_the_process_ends() {
    let mut desk = Desk::new();
    desk.write("one\n");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("two descriptors");
    let following = Following {
        outputs: Arc::clone(&desk.outputs),
        handle: "a".to_owned(),
        made: MADE,
        process: Some(ours.into()),
        changed: desk.sender.subscribe(),
        attempt: "could not follow".to_owned(),
    };
    let mut stream = lines(following, None).await.expect("the files are there");
    let mut next = async || {
        let next = tokio::time::timeout(Duration::from_secs(10), stream.next()).await;
        next.expect("it comes")
            .map(|line| line.expect("the disk is there").line)
    };
    assert_eq!(next().await.as_deref(), Some(&b"one"[..]));
    desk.write("two\nha");
    assert_eq!(next().await.as_deref(), Some(&b"two"[..]));
    desk.write("lf\n\nlast words");
    assert_eq!(next().await.as_deref(), Some(&b"half"[..]));
    drop(theirs);
    assert_eq!(next().await.as_deref(), Some(&b"last words"[..]));
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn a_decky_that_never_spoke_has_said_nothing() {
    let desk = Desk::new();
    desk.outputs.remove("a").expect("the disk is there");
    assert_eq!(desk.lines(None).await, []);
    assert_eq!(desk.files(), [] as [String; 0]);
}

#[test]
fn a_line_without_end_is_cut_and_marked() {
    let mut lines = Lines::default();
    let mut given = Vec::new();
    lines.push(0, &vec![b'x'; 5 * MAX_LINE], |_, line| given.push(line));
    lines.push(0, b"\nnext\n", |_, line| given.push(line));
    assert_eq!(given[0].len(), LIMIT + CUT.len());
    assert!(given[0].ends_with(CUT));
    assert_eq!(&given[1][..], b"next");
}

proptest! {
    #[test]
    fn lines_do_not_depend_on_how_they_are_cut_into_pieces(
        text in proptest::collection::vec("[a-z]{0,9}", 0..20),
        cuts in proptest::collection::vec(1_usize..7, 0..60),
    ) {
        let bytes = text.join("\n").into_bytes();
        let mut lines = Lines::default();
        let (mut given, mut at) = (Vec::new(), 0);
        for cut in cuts.into_iter().chain([bytes.len()]) {
            let end = bytes.len().min(at + cut);
            lines.push(at as u64, &bytes[at..end], |place, line| given.push((place, line)));
            at = end;
        }
        given.extend(lines.end());
        let mut wanted = Vec::new();
        let mut place = 0;
        for line in &text {
            if !line.is_empty() {
                wanted.push((place, Bytes::from(line.clone().into_bytes())));
            }
            place += line.len() as u64 + 1;
        }
        prop_assert_eq!(given, wanted);
    }

    #[test]
    fn places_and_times_are_the_same(place in 0_u64..1 << 50) {
        prop_assert_eq!(place_of(time_of(place, MADE), MADE), place);
    }
}
