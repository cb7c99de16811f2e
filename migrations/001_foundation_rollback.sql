-- Remove what 001_foundation.sql made, and nothing else: a conversations table that was there before stays with its rows,
-- and so does a project_id column that was there before.

DROP FUNCTION sidegate_drop_partitions(INTEGER);
DROP FUNCTION sidegate_ensure_partitions(INTEGER);
DROP FUNCTION sidegate_conversation(TEXT, TEXT, TEXT, TIMESTAMPTZ);
DROP TABLE trace_dead_letters;
DROP TABLE trace_contents;
DROP TABLE request_traces;

DO $$
BEGIN
    IF EXISTS (SELECT FROM sidegate_additions WHERE object = 'conversations') THEN
        DROP TABLE conversations;
    ELSIF EXISTS (SELECT FROM sidegate_additions WHERE object = 'conversations.project_id') THEN
        ALTER TABLE conversations DROP COLUMN project_id;
    END IF;
END $$;

DROP TABLE user_quotas;
DROP FUNCTION reset_all_quotas();
DROP FUNCTION auto_reset_quota_check();
DROP TABLE user_roles;
DROP FUNCTION sidegate_next_reset(TEXT, TIMESTAMPTZ);
DROP TABLE projects;
DROP TABLE organizations;
DROP FUNCTION sidegate_is_time_zone(TEXT);
DROP FUNCTION sidegate_touch();
DROP TABLE sidegate_additions;
