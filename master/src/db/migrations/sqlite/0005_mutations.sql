-- Edits of live topologies, in the order of `sequence`. A claim is a lease on a pending one:
-- `worker` holds it until `lease_until`. `applying` is committed as `revision`, and goes to the
-- host under the fence (`epoch`, `generation`). `payload` is JSON that only the domain reads.
CREATE TABLE mutations (
    row         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          BLOB NOT NULL UNIQUE,
    topology    BLOB NOT NULL REFERENCES topologies (id) ON DELETE CASCADE,
    sequence    INTEGER NOT NULL,
    op          TEXT NOT NULL,
    payload     TEXT NOT NULL,
    cause       TEXT NOT NULL,
    actor       TEXT NOT NULL,
    state       TEXT NOT NULL,
    enqueued_at INTEGER NOT NULL,
    changed_at  INTEGER NOT NULL,
    worker      BLOB,
    lease_until INTEGER,
    claims      INTEGER NOT NULL,
    revision    INTEGER,
    epoch       INTEGER,
    generation  INTEGER,
    reason      TEXT NOT NULL,
    UNIQUE (topology, sequence)
) STRICT;
CREATE INDEX mutations_pending ON mutations (topology, sequence) WHERE state = 'pending';
CREATE INDEX mutations_applying ON mutations (topology, sequence) WHERE state = 'applying';

-- Where the objects of a topology are drawn. No foreign key to them: an edit writes them anew.
CREATE TABLE places (
    topology BLOB NOT NULL REFERENCES topologies (id) ON DELETE CASCADE,
    object   BLOB NOT NULL,
    x        INTEGER NOT NULL,
    y        INTEGER NOT NULL,
    width    INTEGER,
    height   INTEGER,
    PRIMARY KEY (topology, object)
) STRICT, WITHOUT ROWID;
