-- How far the history of a topology was forgotten: the last status change that is gone, and when the mutation among those that
-- are gone had changed that did so last. A stream that was read less far cannot go on where it was.
ALTER TABLE topologies ADD COLUMN forgotten_status BIGINT NOT NULL DEFAULT 0;
ALTER TABLE topologies ADD COLUMN forgotten_mutation BIGINT NOT NULL DEFAULT 0;
