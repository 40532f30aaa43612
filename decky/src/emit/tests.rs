use std::io::Write;
use std::sync::mpsc as blocking;

use proto::line::decode;
use uuid::Uuid;

use super::output::Stream;
use super::*;

/// An output that tests read.
#[derive(Clone, Default)]
pub(crate) struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    /// Every line so far; each must be one that an agent can read.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let bytes = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        bytes
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| decode(line).expect("a decky writes lines"))
            .collect()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An emitter into a sink.
pub(crate) fn emitter() -> (Emitter, Sink) {
    let sink = Sink::default();
    let emitter = Emitter::start(
        Stream(sink.clone()),
        boot(),
        lines(64),
        crate::clock::system,
    );
    (emitter.expect("a thread can be started"), sink)
}

/// Room for so many lines, which are held for as long as it takes.
fn lines(lines: usize) -> Bounds {
    Bounds {
        lines,
        hold: Duration::MAX,
    }
}

fn boot() -> BootId {
    BootId::new(Uuid::from_u128(7))
}

fn sighting(payload: Payload) -> Sighting {
    Sighting {
        at: crate::clock::system(),
        service: None,
        session: None,
        source: None,
        destination: None,
        severity: Severity::Info,
        payload,
        raw: None,
    }
}

fn command(text: &str) -> Sighting {
    sighting(Payload::Command {
        line: Evidence::from(text),
    })
}

/// An output that is blocked until it is let go.
struct Blocked {
    sink: Sink,
    reached: blocking::Sender<()>,
    release: blocking::Receiver<()>,
    open: bool,
}

impl Write for Blocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.open {
            self.reached.send(()).ok();
            self.release.recv().ok();
            self.open = true;
        }
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn connects_give_way_first_and_the_loss_is_said() {
    let sink = Sink::default();
    let (reached, is_reached) = blocking::channel();
    let (let_go, release) = blocking::channel();
    let output = Blocked {
        sink: sink.clone(),
        reached,
        release,
        open: false,
    };
    let emitter = Emitter::start(Stream(output), boot(), lines(8), crate::clock::system)
        .expect("a thread can be started");
    emitter.in_force("d1".to_owned());
    emitter.lifecycle("started", "").await;
    is_reached.recv().expect("the writer writes");

    for _ in 0..20 {
        emitter.offer(sighting(Payload::Connect));
    }
    // The last quarter of the queue is kept for these.
    emitter.emit(command("id")).await;
    emitter.emit(command("w")).await;
    let late = emitter.clone();
    let waiting = crate::task::spawn("late", async move { late.emit(command("ls")).await });
    tokio::task::yield_now().await;
    assert!(
        !waiting.is_finished(),
        "evidence waits for room, and is not dropped"
    );
    let_go.send(()).expect("the writer waits");
    waiting.await.expect("it was written");
    emitter.flush().await;

    let lines = sink.lines();
    let counters: Vec<u64> = lines.iter().map(|line| line.position.counter).collect();
    assert_eq!(counters, (1..=lines.len() as u64).collect::<Vec<_>>());
    let of = |wanted: &Payload| {
        lines
            .iter()
            .filter(|line| line.sighting.payload == *wanted)
            .count()
    };
    assert_eq!(of(&Payload::Connect), 6);
    for text in ["id", "w", "ls"] {
        assert_eq!(
            of(&Payload::Command {
                line: Evidence::from(text)
            }),
            1,
            "{text}"
        );
    }
    assert_eq!(
        of(&Payload::Lifecycle {
            state: "dropped".to_owned(),
            config: "d1".to_owned(),
            detail: Evidence::from("connects and disconnects while the output was blocked"),
            count: 14,
        }),
        1
    );
}

#[tokio::test]
async fn an_output_that_is_gone_is_noticed_and_blocks_nobody() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let emitter = Emitter::start(Stream(Gone), boot(), lines(4), crate::clock::system)
        .expect("a thread can be started");
    emitter.emit(command("id")).await;
    emitter.gone().await;
    emitter.emit(command("w")).await;
    emitter.flush().await;
}

/// An output of so many bytes, until it is cut.
#[derive(Clone)]
struct Small {
    sink: Sink,
    room: Arc<AtomicU64>,
}

impl Output for Small {
    fn put(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let length = line.len() as u64;
            let room = self.room.load(Ordering::Relaxed);
            if room < length {
                break;
            }
            self.room.store(room - length, Ordering::Relaxed);
            self.sink.write_all(line)?;
            taken += line.len();
        }
        Ok(taken)
    }
}

fn full() -> Small {
    Small {
        sink: Sink::default(),
        room: Arc::new(AtomicU64::new(0)),
    }
}

#[tokio::test]
async fn what_a_full_output_does_not_take_is_held_until_it_does() {
    let output = full();
    let (sink, room) = (output.sink.clone(), Arc::clone(&output.room));
    let emitter = Emitter::start(output, boot(), lines(64), crate::clock::system);
    let emitter = emitter.expect("a thread can be started");
    emitter.emit(command("held, and written after all")).await;
    room.store(1 << 20, Ordering::Relaxed);
    emitter.flush().await;
    assert_eq!(sink.lines().len(), 1);
}

#[tokio::test]
async fn what_was_held_for_long_enough_is_counted_and_said_once_it_takes_again() {
    let output = full();
    let (sink, room) = (output.sink.clone(), Arc::clone(&output.room));
    let bounds = Bounds {
        lines: 64,
        hold: Duration::ZERO,
    };
    let emitter = Emitter::start(output, boot(), bounds, crate::clock::system);
    let emitter = emitter.expect("a thread can be started");
    for number in 0..20 {
        emitter.emit(command(&format!("lost {number}"))).await;
        // A sign of life is not missed by anybody.
        emitter.alive();
        // One batch each: also the account of what was lost before is lost, and kept.
        emitter.flush().await;
    }
    assert_eq!(sink.lines().len(), 0);
    room.store(1 << 20, Ordering::Relaxed);
    let mut said = 0;
    while said == 0 {
        emitter.alive();
        emitter.flush().await;
        said = sink.lines().len();
    }

    let lines = sink.lines();
    let counters: Vec<u64> = lines.iter().map(|line| line.position.counter).collect();
    assert_eq!(
        counters,
        (1..=lines.len() as u64).collect::<Vec<_>>(),
        "no gap beside the account"
    );
    let lost: Vec<_> = lines
        .iter()
        .filter_map(|line| {
            let Payload::Lifecycle {
                state,
                detail,
                count,
                ..
            } = &line.sighting.payload
            else {
                return None;
            };
            (state == "dropped").then(|| (detail.text(), *count))
        })
        .collect();
    assert_eq!(lost, [(Some("lines while the output was full"), 20)]);
}
