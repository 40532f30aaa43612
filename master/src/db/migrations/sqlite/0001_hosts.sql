-- Ids are 16 bytes, times are nanoseconds since 1970 in UTC, words are those of `domain`.

CREATE TABLE meta (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    epoch    INTEGER NOT NULL
) STRICT;
INSERT INTO meta (only_row, epoch) VALUES (1, 1);

CREATE TABLE audit (
    row     INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_keeps_its_words BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_keeps_its_rows BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

CREATE TABLE hosts (
    id            BLOB PRIMARY KEY,
    name          TEXT NOT NULL,
    name_fold     TEXT NOT NULL,
    standing      TEXT NOT NULL,
    enrolled_at   INTEGER NOT NULL,
    last_seen     INTEGER,
    agent_version TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- A removed host is a tombstone: its id stays, its name is free.
CREATE UNIQUE INDEX hosts_by_name ON hosts (name_fold) WHERE standing <> 'removed';

CREATE TABLE host_keys (
    host     BLOB NOT NULL REFERENCES hosts (id),
    key      BLOB NOT NULL,
    added_at INTEGER NOT NULL,
    PRIMARY KEY (host, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    id          BLOB PRIMARY KEY,
    secret_hash BLOB NOT NULL,
    name        TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    creator     TEXT NOT NULL,
    host        BLOB REFERENCES hosts (id),
    key         BLOB,
    certificate BLOB,
    CHECK ((host IS NULL) = (key IS NULL))
) STRICT, WITHOUT ROWID;

-- One row per host for as long as the host is known: its fence only rises.
CREATE TABLE assignments (
    host       BLOB PRIMARY KEY REFERENCES hosts (id),
    epoch      INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    topology   BLOB REFERENCES topologies (id),
    hash       BLOB,
    hydrated   BLOB,
    CHECK ((topology IS NULL) = (hash IS NULL) AND (topology IS NULL) = (hydrated IS NULL))
) STRICT;
CREATE INDEX assignments_by_topology ON assignments (topology) WHERE topology IS NOT NULL;
