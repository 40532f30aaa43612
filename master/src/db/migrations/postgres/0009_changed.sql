-- Streams read on behind the last change that they told.
CREATE INDEX mutations_changed ON mutations (topology, changed_at, sequence);
-- What a decky serves is what its last transition says.
CREATE INDEX events_transitions ON events (decky, row) WHERE kind = 'mutation';
