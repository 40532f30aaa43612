//! Where word of what is followed comes from: the stream of a topology's news, taken up again
//! whenever it breaks, or, where no stream tells, looking again and again.

use std::future::Future;
use std::time::Duration;

use proto::client::{Client, ClientError, NewsStream};
use proto::rest::TopologyState;
use proto::rest::mutation::{MutationShape, TopologyNews, TopologySnapshot};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often one that nothing announces is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Whoever follows is never far behind: so much waits for it.
const AHEAD: usize = 16;

/// What came.
#[derive(Debug)]
pub(super) enum Heard<N> {
    /// Word of what is followed.
    Told(N),
    /// Word that was asked for beside what decides.
    Gauge(N),
    /// The master cannot be asked just now; it is tried again.
    Away(ClientError),
    /// The master answers again.
    Back,
    /// Time does not mend this.
    Lost(ClientError),
}

/// Word of one topology.
#[derive(Debug)]
pub(crate) enum Told {
    /// A message of its stream.
    News(TopologyNews),
    /// How far its host is, and what is awaited. The master keeps neither in its store, which is
    /// all that the stream tells of, so they are asked for beside it: they are shown, and decide
    /// nothing.
    Gauge(Box<TopologyState>),
}

/// Listens for as long as it is kept.
pub(crate) struct Source<N> {
    heard: Receiver<Heard<N>>,
    /// What listens; it ends with this.
    _tasks: JoinSet<()>,
}

/// The listener is gone.
struct Gone;

impl<N> Source<N> {
    pub(super) async fn next(&mut self) -> Option<Heard<N>> {
        self.heard.recv().await
    }
}

impl Source<Told> {
    /// Everything that is told of a topology; with `mutation`, also how that one has ended when it
    /// did so before the stream began.
    pub(crate) fn topology(client: &Client, id: &str, mutation: Option<&str>) -> Self {
        let (tell, heard) = channel(AHEAD);
        let mut tasks = JoinSet::new();
        let reader = Reader {
            client: client.clone(),
            topology: id.to_owned(),
            mutation: mutation.map(str::to_owned),
            last: None,
            pause: FIRST_PAUSE,
            away: false,
            tell: tell.clone(),
        };
        tasks.spawn(reader.run());
        tasks.spawn(gauge(client.clone(), id.to_owned(), tell));
        Self {
            heard,
            _tasks: tasks,
        }
    }
}

impl<N: Send + 'static> Source<N> {
    /// What `look` gives, again and again: for hosts, of which no stream tells.
    pub(crate) fn looking<F>(look: impl Fn() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<N, ClientError>> + Send,
    {
        let (tell, heard) = channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let word = match look().await {
                    Ok(seen) => Heard::Told(seen),
                    Err(error) if error.is_transient() => Heard::Away(error),
                    Err(error) => Heard::Lost(error),
                };
                if tell.send(word).await.is_err() {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LOOK_EVERY);
            }
        });
        Self {
            heard,
            _tasks: tasks,
        }
    }
}

async fn gauge(client: Client, id: String, tell: Sender<Heard<Told>>) {
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_EVERY);
        // Whether the master can be asked is the stream's to say.
        let Ok(state) = client.topology(&id).await else {
            continue;
        };
        let word = Heard::Gauge(Told::Gauge(Box::new(state)));
        if tell.send(word).await.is_err() {
            return;
        }
    }
}

/// Reads the stream of one topology, from where it broke whenever it does.
struct Reader {
    client: Client,
    topology: String,
    mutation: Option<String>,
    /// The id of the last message that was had.
    last: Option<String>,
    pause: Duration,
    away: bool,
    tell: Sender<Heard<Told>>,
}

impl Reader {
    async fn run(mut self) {
        // Nobody listens any more: that is all that this can say.
        drop(self.read().await);
    }

    async fn read(&mut self) -> Result<(), Gone> {
        loop {
            match self.connection().await? {
                // It was ended: the master stops, or what is followed was removed.
                None => {}
                Some(error) if self.last.is_some() && error.status() == Some(422) => {
                    // The place is not one of this master's, such as after an upgrade: from anew.
                    self.last = None;
                    continue;
                }
                Some(error) if error.is_transient() => self.missed(error).await?,
                Some(error) => return self.tell(Heard::Lost(error)).await,
            }
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Says that the master cannot be asked; that a stream broke only when there is not soon another.
    async fn missed(&mut self, error: ClientError) -> Result<(), Gone> {
        if matches!(error, ClientError::Cut { .. }) && self.pause == FIRST_PAUSE {
            return Ok(());
        }
        self.away = true;
        self.tell(Heard::Away(error)).await
    }

    /// One connection, from its beginning to its end; why it broke, when it did.
    async fn connection(&mut self) -> Result<Option<ClientError>, Gone> {
        let opened = self
            .client
            .topology_news(&self.topology, self.last.as_deref());
        let mut stream = match opened.await {
            Ok(stream) => stream,
            Err(error) => return Ok(Some(error)),
        };
        if std::mem::take(&mut self.away) {
            self.tell(Heard::Back).await?;
        }
        loop {
            match self.message(&mut stream).await? {
                Ok(true) => self.pause = FIRST_PAUSE,
                Ok(false) => return Ok(None),
                Err(error) => return Ok(Some(error)),
            }
        }
    }

    /// Takes one message; false at the end of the stream.
    async fn message(
        &mut self,
        stream: &mut NewsStream,
    ) -> Result<Result<bool, ClientError>, Gone> {
        let (id, news) = match stream.next().await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(Ok(false)),
            Err(error) => return Ok(Err(error)),
        };
        let ended = match &news {
            TopologyNews::Snapshot(snapshot) => match self.ended(snapshot).await {
                Ok(ended) => ended,
                // Without a place to go on from, the next stream begins with a snapshot again.
                Err(error) => return Ok(Err(error)),
            },
            TopologyNews::Edited(_)
            | TopologyNews::Status(_)
            | TopologyNews::Mutation(_)
            | TopologyNews::DeckyMutated(_) => None,
        };
        self.last = Some(id).filter(|id| !id.is_empty());
        self.tell(Heard::Told(Told::News(news))).await?;
        if let Some(mutation) = ended {
            let news = TopologyNews::Mutation(Box::new(mutation));
            self.tell(Heard::Told(Told::News(news))).await?;
        }
        Ok(Ok(true))
    }

    /// The mutation, when the snapshot has it no more: it holds only what has not ended.
    async fn ended(
        &self,
        snapshot: &TopologySnapshot,
    ) -> Result<Option<MutationShape>, ClientError> {
        let Some(id) = &self.mutation else {
            return Ok(None);
        };
        if snapshot.mutations.iter().any(|open| open.id == *id) {
            return Ok(None);
        }
        self.client.mutation(id).await.map(Some)
    }

    async fn tell(&self, word: Heard<Told>) -> Result<(), Gone> {
        self.tell.send(word).await.map_err(|_| Gone)
    }
}
