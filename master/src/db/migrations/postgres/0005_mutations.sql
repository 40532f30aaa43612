-- Edits of live topologies, in the order of `sequence`. A claim is a lease on a pending one:
-- `worker` holds it until `lease_until`. `applying` is committed as `revision`, and goes to the
-- host under the fence (`epoch`, `generation`). `payload` is JSON that only the domain reads.
CREATE TABLE mutations (
    row         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          BYTEA NOT NULL UNIQUE,
    topology    BYTEA NOT NULL REFERENCES topologies (id) ON DELETE CASCADE,
    sequence    BIGINT NOT NULL,
    op          TEXT NOT NULL,
    payload     TEXT NOT NULL,
    cause       TEXT NOT NULL,
    actor       TEXT NOT NULL,
    state       TEXT NOT NULL,
    enqueued_at BIGINT NOT NULL,
    changed_at  BIGINT NOT NULL,
    worker      BYTEA,
    lease_until BIGINT,
    claims      BIGINT NOT NULL,
    revision    BIGINT,
    epoch       BIGINT,
    generation  BIGINT,
    reason      TEXT NOT NULL,
    UNIQUE (topology, sequence)
);
CREATE INDEX mutations_pending ON mutations (topology, sequence) WHERE state = 'pending';
CREATE INDEX mutations_applying ON mutations (topology, sequence) WHERE state = 'applying';

-- Where the objects of a topology are drawn. No foreign key to them: an edit writes them anew.
CREATE TABLE places (
    topology BYTEA NOT NULL REFERENCES topologies (id) ON DELETE CASCADE,
    object   BYTEA NOT NULL,
    x        BIGINT NOT NULL,
    y        BIGINT NOT NULL,
    width    BIGINT,
    height   BIGINT,
    PRIMARY KEY (topology, object)
);
