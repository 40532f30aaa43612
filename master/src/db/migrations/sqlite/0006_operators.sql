CREATE TABLE users (
    id            BLOB PRIMARY KEY,
    name          TEXT NOT NULL,
    name_fold     TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    role          TEXT NOT NULL,
    must_change   INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    password_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Of a session, as of an API token, only the SHA-256 is kept.
CREATE TABLE sessions (
    hash       BLOB PRIMARY KEY,
    owner      BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    origin     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_owner ON sessions (owner);

CREATE TABLE api_tokens (
    id         BLOB PRIMARY KEY,
    hash       BLOB NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    role       TEXT NOT NULL,
    creator    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

-- Answers to requests that may be sent again; without an answer, a request that is being served
-- until `lease_until`.
CREATE TABLE idempotency_keys (
    owner       TEXT NOT NULL,
    key         TEXT NOT NULL,
    digest      BLOB NOT NULL,
    lease_until INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    status      INTEGER,
    body        BLOB,
    PRIMARY KEY (owner, key),
    CHECK ((status IS NULL) = (body IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);

-- `previous` is the SHA-256 of the entry before; `audit_head` that of the newest one. Entries of
-- before the chain have none: what they would hold is computed.
ALTER TABLE audit ADD COLUMN previous BLOB;
ALTER TABLE meta ADD COLUMN audit_head BLOB;
