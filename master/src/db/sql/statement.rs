//! One statement for either database: its text stands once, with `$1` for its first value, which
//! both databases read. What is said differently to them is told apart by [`Dialect`], at the few
//! places where it is.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{
    AssertSqlSafe, Decode, PgConnection, PgPool, Postgres, Row as _, Sqlite, SqliteConnection,
    SqlitePool, Transaction, Type,
};

use tokio::time::timeout;

use crate::metrics::Metrics;
use crate::task;
use crate::witness;

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

/// A value that is bound to a statement.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Int(Option<i64>),
    Flag(bool),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// A type that both databases read from a column.
pub(crate) trait Readable<'r>:
    Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>
{
}

impl<'r, T> Readable<'r> for T where
    T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>
{
}

/// A row of either database.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub(super) fn get<'r, T: Readable<'r>>(&'r self, column: &str) -> Result<T, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    fn first<'r, T: Readable<'r>>(&'r self) -> Result<T, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(0),
            Self::Postgres(row) => row.try_get(0),
        }
    }
}

/// Connections to one database.
#[derive(Debug, Clone)]
pub(in crate::db) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Pool {
    pub(super) const fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// Connections that only read, and what counts their statements.
#[derive(Debug)]
pub(in crate::db) struct Readers {
    pub(in crate::db) pool: Pool,
    pub(in crate::db) metrics: Arc<Metrics>,
}

/// A transaction that is rolled back unless it is committed.
pub(in crate::db) struct Tx {
    pub(super) link: TxLink,
    pub(super) metrics: Arc<Metrics>,
    /// Counts commits, of a transaction that may change more than evidence.
    pub(super) version: Option<Arc<AtomicU64>>,
}

/// The transaction of the driver.
pub(super) enum TxLink {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl TxLink {
    async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => answered(tx.commit()).await,
        }
    }
}

/// How long a server may take to answer. One whose machine is gone never does, and the kernel waits for
/// ever for what it has acknowledged.
const ANSWER: Duration = Duration::from_secs(if cfg!(test) { 20 } else { 60 });

async fn answered<T>(
    asked: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match timeout(ANSWER, asked).await {
        Ok(answer) => answer,
        Err(late) => {
            let late = std::io::Error::new(std::io::ErrorKind::TimedOut, late);
            Err(sqlx::Error::Io(late))
        }
    }
}

impl Tx {
    /// Commits. Where the version counts it, in a task of its own: whoever asked may go away meanwhile
    /// (a client that disconnects), and the database commits all the same.
    pub(in crate::db) async fn commit(self) -> Result<(), sqlx::Error> {
        let Self { link, version, .. } = self;
        // Before: of one that fails nobody knows whether it is stored.
        witness::committing();
        let Some(version) = version else {
            return link.commit().await;
        };
        let done = task::spawn("db.commit", tracing::Span::current(), async move {
            let done = link.commit().await;
            // After one that failed too, for the same reason.
            version.fetch_add(1, Ordering::Release);
            done
        });
        match done.await {
            Ok(done) => done,
            Err(ended) => Err(sqlx::Error::Io(std::io::Error::other(ended))),
        }
    }

    /// Edits every topology as far as others can tell: the next revision of each.
    #[cfg(test)]
    pub(in crate::db) async fn edit_all(&mut self) {
        let edited = sql("UPDATE topologies SET revision = revision + 1");
        edited.execute(self).await.expect("the database answers");
    }

    /// Ends it behind the driver's back, as SQLite does by itself when the disk is full.
    #[cfg(test)]
    pub(in crate::db) async fn end_unseen(&mut self) {
        match &mut self.link {
            TxLink::Sqlite(tx) => sqlx::raw_sql("ROLLBACK").execute(&mut **tx).await.map(drop),
            TxLink::Postgres(tx) => sqlx::raw_sql("ROLLBACK").execute(&mut **tx).await.map(drop),
        }
        .expect("there is one");
    }

    pub(super) const fn dialect(&self) -> Dialect {
        match self.link {
            TxLink::Sqlite(_) => Dialect::Sqlite,
            TxLink::Postgres(_) => Dialect::Postgres,
        }
    }
}

/// Where a statement runs.
pub(super) struct On<'a> {
    link: Link<'a>,
    metrics: &'a Metrics,
}

enum Link<'a> {
    Sqlite(&'a mut SqliteConnection),
    SqlitePool(&'a SqlitePool),
    Postgres(&'a mut PgConnection),
    PostgresPool(&'a PgPool),
}

impl<'a> From<&'a mut Tx> for On<'a> {
    fn from(tx: &'a mut Tx) -> Self {
        let link = match &mut tx.link {
            TxLink::Sqlite(tx) => Link::Sqlite(&mut *tx),
            TxLink::Postgres(tx) => Link::Postgres(&mut *tx),
        };
        let metrics = &tx.metrics;
        Self { link, metrics }
    }
}

impl<'a> From<&'a Readers> for On<'a> {
    fn from(readers: &'a Readers) -> Self {
        let link = match &readers.pool {
            Pool::Sqlite(pool) => Link::SqlitePool(pool),
            Pool::Postgres(pool) => Link::PostgresPool(pool),
        };
        let metrics = &readers.metrics;
        Self { link, metrics }
    }
}

/// A statement with its values.
pub(super) struct Statement {
    sql: Cow<'static, str>,
    values: Vec<Value>,
    /// Whether the connection keeps it prepared.
    kept: bool,
}

/// A statement whose text is known.
pub(super) const fn sql(text: &'static str) -> Statement {
    Statement {
        sql: Cow::Borrowed(text),
        values: Vec::new(),
        kept: true,
    }
}

impl Statement {
    #[must_use]
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs it; how many rows it changed.
    pub(super) fn execute<'e>(
        self,
        on: impl Into<On<'e>>,
    ) -> BoxFuture<'e, Result<u64, sqlx::Error>> {
        let On { link, metrics } = on.into();
        metrics.db_statements_total.inc();
        Box::pin(async move {
            Ok(match link {
                Link::Sqlite(on) => self.for_sqlite().execute(on).await?.rows_affected(),
                Link::SqlitePool(on) => self.for_sqlite().execute(on).await?.rows_affected(),
                Link::Postgres(on) => answered(self.for_postgres().execute(on))
                    .await?
                    .rows_affected(),
                Link::PostgresPool(on) => answered(self.for_postgres().execute(on))
                    .await?
                    .rows_affected(),
            })
        })
    }

    pub(super) fn fetch_all<'e>(
        self,
        on: impl Into<On<'e>>,
    ) -> BoxFuture<'e, Result<Vec<Row>, sqlx::Error>> {
        let On { link, metrics } = on.into();
        metrics.db_statements_total.inc();
        Box::pin(async move {
            Ok(match link {
                Link::Sqlite(on) => rows(self.for_sqlite().fetch_all(on).await?, Row::Sqlite),
                Link::SqlitePool(on) => rows(self.for_sqlite().fetch_all(on).await?, Row::Sqlite),
                Link::Postgres(on) => rows(
                    answered(self.for_postgres().fetch_all(on)).await?,
                    Row::Postgres,
                ),
                Link::PostgresPool(on) => rows(
                    answered(self.for_postgres().fetch_all(on)).await?,
                    Row::Postgres,
                ),
            })
        })
    }

    /// The first row, for statements that have one at most.
    pub(super) async fn fetch_optional<'e>(
        self,
        on: impl Into<On<'e>>,
    ) -> Result<Option<Row>, sqlx::Error> {
        let rows = self.fetch_all(on).await?;
        Ok(rows.into_iter().next())
    }

    pub(super) async fn fetch_one<'e>(self, on: impl Into<On<'e>>) -> Result<Row, sqlx::Error> {
        let row = self.fetch_optional(on).await?;
        row.ok_or(sqlx::Error::RowNotFound)
    }

    /// The first column of the one row.
    pub(super) async fn fetch_value<'e, T>(self, on: impl Into<On<'e>>) -> Result<T, sqlx::Error>
    where
        T: for<'r> Readable<'r>,
    {
        self.fetch_one(on).await?.first()
    }

    fn for_sqlite(self) -> Query<'static, Sqlite, SqliteArguments> {
        let mut query = match self.sql {
            Cow::Borrowed(sql) => sqlx::query(sql),
            Cow::Owned(sql) => sqlx::query(AssertSqlSafe(sql)),
        };
        query = query.persistent(self.kept);
        for value in self.values {
            query = match value {
                Value::Int(value) => query.bind(value),
                Value::Flag(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
            };
        }
        query
    }

    fn for_postgres(self) -> Query<'static, Postgres, PgArguments> {
        let mut query = match self.sql {
            Cow::Borrowed(sql) => sqlx::query(sql),
            Cow::Owned(sql) => sqlx::query(AssertSqlSafe(sql)),
        };
        query = query.persistent(self.kept);
        for value in self.values {
            query = match value {
                Value::Int(value) => query.bind(value),
                Value::Flag(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
            };
        }
        query
    }
}

fn rows<T>(found: Vec<T>, row: impl Fn(T) -> Row) -> Vec<Row> {
    found.into_iter().map(row).collect()
}

/// A statement whose text is put together from parts of ours; what comes from outside is bound.
pub(super) struct Builder {
    dialect: Dialect,
    sql: String,
    values: Vec<Value>,
}

impl Builder {
    pub(super) fn new(dialect: Dialect, text: &'static str) -> Self {
        Self {
            dialect,
            sql: text.to_owned(),
            values: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, text: &'static str) -> &mut Self {
        self.sql.push_str(text);
        self
    }

    pub(super) fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        match self.dialect {
            // `$1` is a name to SQLite, which it looks for from the first one on, for each.
            Dialect::Sqlite => self.sql.push('?'),
            Dialect::Postgres => {
                self.sql.push('$');
                self.sql.push_str(&self.values.len().to_string());
            }
        }
        self
    }

    /// Pushes `(…), (…)`: a row for each of `items`, with the values that `row` gives.
    pub(super) fn push_rows<T, const N: usize>(
        &mut self,
        items: &[T],
        row: impl Fn(&T) -> [Value; N],
    ) -> &mut Self {
        for (index, item) in items.iter().enumerate() {
            self.push(if index == 0 { "(" } else { ", (" });
            for (column, value) in row(item).into_iter().enumerate() {
                if column > 0 {
                    self.push(", ");
                }
                self.push_bind(value);
            }
            self.push(")");
        }
        self
    }

    /// The statement, kept prepared: for texts of which there are few.
    pub(super) fn build(self) -> Statement {
        Statement {
            sql: Cow::Owned(self.sql),
            values: self.values,
            kept: true,
        }
    }

    /// The statement, prepared for this once: for texts that depend on how much is written.
    pub(super) fn build_once(self) -> Statement {
        Statement {
            kept: false,
            ..self.build()
        }
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(Some(value.into()))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Flag(value)
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        value.map_or(Self::Text(None), Self::from)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(storable(value).into_owned()))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::from(value.as_str())
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::from(value.as_str())
    }
}

impl From<Option<String>> for Value {
    fn from(value: Option<String>) -> Self {
        value.map_or(Self::Text(None), Self::from)
    }
}

impl From<&Option<String>> for Value {
    fn from(value: &Option<String>) -> Self {
        value.as_ref().map_or(Self::Text(None), Self::from)
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(Some(value.to_vec()))
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(Some(value))
    }
}

impl From<&Vec<u8>> for Value {
    fn from(value: &Vec<u8>) -> Self {
        Self::from(value.as_slice())
    }
}

impl From<Option<Vec<u8>>> for Value {
    fn from(value: Option<Vec<u8>>) -> Self {
        Self::Bytes(value)
    }
}

impl From<Option<&[u8]>> for Value {
    fn from(value: Option<&[u8]>) -> Self {
        Self::Bytes(value.map(<[u8]>::to_vec))
    }
}

/// Text as both databases keep it: PostgreSQL refuses U+0000 within text, and a reason that a host
/// gives may hold one. What is bytes by nature is kept as bytes.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{2400}"))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Store as _;
    use crate::db::postgres::tests::Guest;

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_busy_and_others_go_on() {
        let guest = Guest::new().await;
        let store = guest.open().await;
        let never = || sql("SELECT true FROM pg_sleep(3600)");
        let mut tx = store.writing("wait").await.expect("it is its turn");
        let (read, written) =
            tokio::join!(never().fetch_all(&store.read), never().execute(&mut tx),);
        for error in [read.err(), written.err()] {
            assert!(matches!(error, Some(sqlx::Error::Io(_))), "{error:?}");
        }
        drop(tx);
        assert_eq!(store.topologies().await.expect("answered"), []);
    }
}
