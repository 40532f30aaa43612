CREATE TABLE topologies (
    row                BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id                 BYTEA NOT NULL UNIQUE,
    name               TEXT NOT NULL,
    name_fold          TEXT COLLATE "C" NOT NULL,
    host               BYTEA,
    revision           BIGINT NOT NULL,
    created_at         BIGINT NOT NULL,
    status             TEXT NOT NULL,
    status_at          BIGINT NOT NULL,
    reason             TEXT NOT NULL,
    deadline           BIGINT,
    desired_epoch      BIGINT,
    desired_generation BIGINT,
    desired_hash       BYTEA,
    applied_epoch      BIGINT,
    applied_generation BIGINT,
    applied_hash       BYTEA,
    applied_at         BIGINT
);
CREATE UNIQUE INDEX topologies_by_name ON topologies (name_fold) WHERE status <> 'torn_down';
CREATE INDEX topologies_live ON topologies (host)
    WHERE status IN ('deploying', 'active', 'degraded', 'tearing_down');
ALTER TABLE assignments ADD FOREIGN KEY (topology) REFERENCES topologies (id);

CREATE TABLE lans (
    id       BYTEA PRIMARY KEY,
    topology BYTEA NOT NULL REFERENCES topologies (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    name     TEXT NOT NULL,
    subnet   TEXT NOT NULL,
    kind     TEXT NOT NULL,
    driver   TEXT NOT NULL,
    UNIQUE (topology, position)
);

-- `services` is JSON, service to option to value; `publish` is JSON as in the topology file.
CREATE TABLE deckies (
    id          BYTEA PRIMARY KEY,
    topology    BYTEA NOT NULL REFERENCES topologies (id) ON DELETE CASCADE,
    position    BIGINT NOT NULL,
    name        TEXT NOT NULL,
    hostname    TEXT NOT NULL,
    archetype   TEXT,
    services    TEXT NOT NULL,
    persona     TEXT NOT NULL,
    forwards_l3 BOOLEAN NOT NULL,
    publish     TEXT NOT NULL,
    seed        TEXT NOT NULL,
    UNIQUE (topology, position)
);

CREATE TABLE edges (
    id       BYTEA PRIMARY KEY,
    topology BYTEA NOT NULL REFERENCES topologies (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    decky    BYTEA NOT NULL REFERENCES deckies (id) ON DELETE CASCADE,
    lan      BYTEA NOT NULL REFERENCES lans (id) ON DELETE CASCADE,
    address  TEXT NOT NULL,
    mac      TEXT NOT NULL,
    home     BOOLEAN NOT NULL,
    UNIQUE (topology, position)
);
-- Without these each removed decky or LAN would read the whole table.
CREATE INDEX edges_by_decky ON edges (decky);
CREATE INDEX edges_by_lan ON edges (lan);

CREATE TABLE status_changes (
    row      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topology BYTEA NOT NULL REFERENCES topologies (id) ON DELETE CASCADE,
    at       BIGINT NOT NULL,
    before   TEXT NOT NULL,
    after    TEXT NOT NULL,
    event    TEXT NOT NULL,
    reason   TEXT NOT NULL,
    actor    TEXT NOT NULL
);
CREATE INDEX status_changes_by_topology ON status_changes (topology);

-- Every decky that was ever assigned to a host. It outlives the topology, so that events that a
-- host held back while the topology was removed are still its own.
CREATE TABLE host_deckies (
    host     BYTEA NOT NULL REFERENCES hosts (id),
    topology BYTEA NOT NULL,
    decky    BYTEA NOT NULL,
    PRIMARY KEY (host, topology, decky)
);
