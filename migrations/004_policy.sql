-- What the policy found in each request and answer, never the text. Undone by 004_policy_rollback.sql.

ALTER TABLE request_traces ADD COLUMN policy JSONB;
COMMENT ON COLUMN request_traces.policy IS
    'What was scanned and found: {"version", "scanned": {direction: characters}, "findings": [...], "unscanned": [...]}';
