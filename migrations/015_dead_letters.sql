-- Dead letters that can be stored later. Undone by 015_dead_letters_rollback.sql.

ALTER TABLE trace_dead_letters
    ADD COLUMN kind    SMALLINT,
    ADD COLUMN charged BOOLEAN NOT NULL DEFAULT false;

COMMENT ON COLUMN trace_dead_letters.kind IS 'Kind of the record as in the journal: 2 final, 3 content, 4 and 5 leases';
COMMENT ON COLUMN trace_dead_letters.charged IS 'Its usage is in the quota already, though its trace is not stored';

-- A journal that is replayed must not charge these once more.
CREATE INDEX trace_dead_letters_charged_idx ON trace_dead_letters (trace_id) WHERE charged;
