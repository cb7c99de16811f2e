-- Remove what 005_keys.sql made: every key and the record of changes are gone. Roles stay.

DROP TABLE audit_log;
DROP TABLE api_keys;
