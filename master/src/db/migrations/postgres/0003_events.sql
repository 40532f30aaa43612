-- Host and spool of an event as one small number: they are in the unique index of every event.
CREATE TABLE spools (
    row   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host  BYTEA NOT NULL,
    spool BYTEA NOT NULL,
    UNIQUE (host, spool)
);

-- `row` is the cursor of readers: those who append take turns, so that rows become visible in the
-- order of their numbers.
CREATE TABLE events (
    row              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    spool            BIGINT NOT NULL REFERENCES spools (row),
    sequence         BIGINT NOT NULL,
    id               BYTEA NOT NULL,
    topology         BYTEA NOT NULL,
    decky            BYTEA NOT NULL,
    kind             TEXT NOT NULL,
    service          TEXT,
    at               BIGINT NOT NULL,
    received_at      BIGINT NOT NULL,
    session          BYTEA,
    source_ip        TEXT,
    source_port      BIGINT,
    destination_ip   TEXT,
    destination_port BIGINT,
    severity         TEXT NOT NULL,
    payload          TEXT NOT NULL,
    raw              BYTEA,
    UNIQUE (spool, sequence)
);
-- With `row`, so that the newest of a decky are read in their order.
CREATE INDEX events_by_time ON events (at);
CREATE INDEX events_by_source ON events (source_ip, row) WHERE source_ip IS NOT NULL;
CREATE INDEX events_by_decky ON events (decky, row);
CREATE INDEX events_by_kind ON events (kind, row);
