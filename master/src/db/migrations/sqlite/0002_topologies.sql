CREATE TABLE topologies (
    row                INTEGER PRIMARY KEY AUTOINCREMENT,
    id                 BLOB NOT NULL UNIQUE,
    name               TEXT NOT NULL,
    name_fold          TEXT NOT NULL,
    host               BLOB,
    revision           INTEGER NOT NULL,
    created_at         INTEGER NOT NULL,
    status             TEXT NOT NULL,
    status_at          INTEGER NOT NULL,
    reason             TEXT NOT NULL,
    deadline           INTEGER,
    desired_epoch      INTEGER,
    desired_generation INTEGER,
    desired_hash       BLOB,
    applied_epoch      INTEGER,
    applied_generation INTEGER,
    applied_hash       BLOB,
    applied_at         INTEGER
) STRICT;
CREATE UNIQUE INDEX topologies_by_name ON topologies (name_fold) WHERE status <> 'torn_down';
CREATE INDEX topologies_live ON topologies (host)
    WHERE status IN ('deploying', 'active', 'degraded', 'tearing_down');

CREATE TABLE lans (
    id       BLOB PRIMARY KEY,
    topology BLOB NOT NULL REFERENCES topologies (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    name     TEXT NOT NULL,
    subnet   TEXT NOT NULL,
    kind     TEXT NOT NULL,
    driver   TEXT NOT NULL,
    UNIQUE (topology, position)
) STRICT, WITHOUT ROWID;

-- `services` is JSON, service to option to value; `publish` is JSON as in the topology file.
CREATE TABLE deckies (
    id          BLOB PRIMARY KEY,
    topology    BLOB NOT NULL REFERENCES topologies (id) ON DELETE CASCADE,
    position    INTEGER NOT NULL,
    name        TEXT NOT NULL,
    hostname    TEXT NOT NULL,
    archetype   TEXT,
    services    TEXT NOT NULL,
    persona     TEXT NOT NULL,
    forwards_l3 INTEGER NOT NULL,
    publish     TEXT NOT NULL,
    seed        TEXT NOT NULL,
    UNIQUE (topology, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE edges (
    id       BLOB PRIMARY KEY,
    topology BLOB NOT NULL REFERENCES topologies (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    decky    BLOB NOT NULL REFERENCES deckies (id) ON DELETE CASCADE,
    lan      BLOB NOT NULL REFERENCES lans (id) ON DELETE CASCADE,
    address  TEXT NOT NULL,
    mac      TEXT NOT NULL,
    home     INTEGER NOT NULL,
    UNIQUE (topology, position)
) STRICT, WITHOUT ROWID;
-- Without these each removed decky or LAN would read the whole table.
CREATE INDEX edges_by_decky ON edges (decky);
CREATE INDEX edges_by_lan ON edges (lan);

CREATE TABLE status_changes (
    row      INTEGER PRIMARY KEY AUTOINCREMENT,
    topology BLOB NOT NULL REFERENCES topologies (id) ON DELETE CASCADE,
    at       INTEGER NOT NULL,
    before   TEXT NOT NULL,
    after    TEXT NOT NULL,
    event    TEXT NOT NULL,
    reason   TEXT NOT NULL,
    actor    TEXT NOT NULL
) STRICT;
CREATE INDEX status_changes_by_topology ON status_changes (topology);

-- Every decky that was ever assigned to a host. It outlives the topology, so that events that a
-- host held back while the topology was removed are still its own.
CREATE TABLE host_deckies (
    host     BLOB NOT NULL REFERENCES hosts (id),
    topology BLOB NOT NULL,
    decky    BLOB NOT NULL,
    PRIMARY KEY (host, topology, decky)
) STRICT, WITHOUT ROWID;
