-- Streams read on behind the last change that they told.
CREATE INDEX mutations_changed ON mutations (topology, changed_at, sequence);
