CREATE TABLE users (
    id            BYTEA PRIMARY KEY,
    name          TEXT NOT NULL,
    name_fold     TEXT COLLATE "C" NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    role          TEXT NOT NULL,
    must_change   BOOLEAN NOT NULL,
    created_at    BIGINT NOT NULL,
    password_at   BIGINT NOT NULL
);

-- Of a session, as of an API token, only the SHA-256 is kept.
CREATE TABLE sessions (
    hash       BYTEA PRIMARY KEY,
    owner      BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    origin     TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_by_owner ON sessions (owner);

CREATE TABLE api_tokens (
    id         BYTEA PRIMARY KEY,
    hash       BYTEA NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    role       TEXT NOT NULL,
    creator    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);

-- Answers to requests that may be sent again; without an answer, a request that is being served
-- until `lease_until`.
CREATE TABLE idempotency_keys (
    owner       TEXT NOT NULL,
    key         TEXT NOT NULL,
    digest      BYTEA NOT NULL,
    lease_until BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    status      BIGINT,
    body        BYTEA,
    PRIMARY KEY (owner, key),
    CHECK ((status IS NULL) = (body IS NULL))
);
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);

-- `previous` is the SHA-256 of the entry before; `audit_head` that of the newest one. Entries of
-- before the chain have none: what they would hold is computed.
ALTER TABLE audit ADD COLUMN previous BYTEA;
ALTER TABLE meta ADD COLUMN audit_head BYTEA;
