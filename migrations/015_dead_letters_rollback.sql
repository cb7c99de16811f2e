-- Remove what 015_dead_letters.sql made. Dead letters stay.

ALTER TABLE trace_dead_letters DROP COLUMN kind, DROP COLUMN charged;
