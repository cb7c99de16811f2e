-- Find a dead letter by its trace, charged or not: each new one looks for itself. Undone by
-- 016_dead_letter_index_rollback.sql.
CREATE INDEX trace_dead_letters_trace_id_idx ON trace_dead_letters (trace_id);
DROP INDEX trace_dead_letters_charged_idx;
