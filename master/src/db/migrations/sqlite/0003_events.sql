-- Host and spool of an event as one small number: they are in the unique index of every event.
CREATE TABLE spools (
    row   INTEGER PRIMARY KEY,
    host  BLOB NOT NULL,
    spool BLOB NOT NULL,
    UNIQUE (host, spool)
) STRICT;

-- AUTOINCREMENT: `row` is the cursor of readers, so no row may ever come back with other content.
CREATE TABLE events (
    row              INTEGER PRIMARY KEY AUTOINCREMENT,
    spool            INTEGER NOT NULL REFERENCES spools (row),
    sequence         INTEGER NOT NULL,
    id               BLOB NOT NULL,
    topology         BLOB NOT NULL,
    decky            BLOB NOT NULL,
    kind             TEXT NOT NULL,
    service          TEXT,
    at               INTEGER NOT NULL,
    received_at      INTEGER NOT NULL,
    session          BLOB,
    source_ip        TEXT,
    source_port      INTEGER,
    destination_ip   TEXT,
    destination_port INTEGER,
    severity         TEXT NOT NULL,
    payload          TEXT NOT NULL,
    raw              BLOB,
    UNIQUE (spool, sequence)
) STRICT;
CREATE INDEX events_by_time ON events (at);
CREATE INDEX events_by_source ON events (source_ip) WHERE source_ip IS NOT NULL;
CREATE INDEX events_by_decky ON events (decky);
CREATE INDEX events_by_kind ON events (kind);
