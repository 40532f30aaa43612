-- Ids are 16 bytes, times are nanoseconds since 1970 in UTC, words are those of `domain`. What is
-- sorted by is sorted by its bytes, as in SQLite.

CREATE TABLE meta (
    only_row BIGINT PRIMARY KEY CHECK (only_row = 1),
    epoch    BIGINT NOT NULL
);
INSERT INTO meta (only_row, epoch) VALUES (1, 1);

CREATE TABLE audit (
    row     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      BIGINT NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL
);
CREATE FUNCTION refuse_to_alter_the_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the audit log is append-only'; END;
$$;
CREATE TRIGGER audit_keeps_its_words BEFORE UPDATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_alter_the_audit();
CREATE TRIGGER audit_keeps_its_rows BEFORE DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_alter_the_audit();

CREATE TABLE hosts (
    id            BYTEA PRIMARY KEY,
    name          TEXT NOT NULL,
    name_fold     TEXT COLLATE "C" NOT NULL,
    standing      TEXT NOT NULL,
    enrolled_at   BIGINT NOT NULL,
    last_seen     BIGINT,
    agent_version TEXT NOT NULL
);
-- A removed host is a tombstone: its id stays, its name is free.
CREATE UNIQUE INDEX hosts_by_name ON hosts (name_fold) WHERE standing <> 'removed';

CREATE TABLE host_keys (
    host     BYTEA NOT NULL REFERENCES hosts (id),
    key      BYTEA NOT NULL,
    added_at BIGINT NOT NULL,
    PRIMARY KEY (host, key)
);

CREATE TABLE tokens (
    id          BYTEA PRIMARY KEY,
    secret_hash BYTEA NOT NULL,
    name        TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    creator     TEXT NOT NULL,
    host        BYTEA REFERENCES hosts (id),
    key         BYTEA,
    certificate BYTEA,
    CHECK ((host IS NULL) = (key IS NULL))
);

-- One row per host for as long as the host is known: its fence only rises.
CREATE TABLE assignments (
    host       BYTEA PRIMARY KEY REFERENCES hosts (id),
    epoch      BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    topology   BYTEA,
    hash       BYTEA,
    hydrated   BYTEA,
    CHECK ((topology IS NULL) = (hash IS NULL) AND (topology IS NULL) = (hydrated IS NULL))
);
CREATE INDEX assignments_by_topology ON assignments (topology) WHERE topology IS NOT NULL;
