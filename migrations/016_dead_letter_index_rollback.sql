-- Remove what 016_dead_letter_index.sql made.
CREATE INDEX trace_dead_letters_charged_idx ON trace_dead_letters (trace_id) WHERE charged;
DROP INDEX trace_dead_letters_trace_id_idx;
