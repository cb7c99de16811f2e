-- Remove what 006_key_bounds.sql made. Keys stay, with the whole role of their users.

DROP VIEW sidegate_keys;
DROP FUNCTION sidegate_rank(TEXT);
ALTER TABLE api_keys DROP COLUMN role_limit;
