-- Remove what 002_quota_leases.sql made. What leases held or burned is free again; what is settled stays.

DROP FUNCTION sidegate_forget_leases(INTEGER);
DROP FUNCTION sidegate_reconcile_quotas(INTERVAL, TIMESTAMPTZ);
DROP FUNCTION sidegate_release(JSONB, TIMESTAMPTZ);
DROP FUNCTION sidegate_settle(JSONB, BIGINT, NUMERIC, TIMESTAMPTZ);
DROP FUNCTION sidegate_window_at(TEXT, TEXT, TIMESTAMPTZ);
DROP FUNCTION sidegate_book(TEXT, TEXT, BIGINT, BIGINT, NUMERIC, BIGINT, BIGINT, BIGINT, BIGINT);
DROP FUNCTION sidegate_renew(UUID[], INTERVAL, TIMESTAMPTZ);
DROP FUNCTION sidegate_acquire(
    TEXT, TEXT, UUID, TEXT, BIGINT, BIGINT, BIGINT, BIGINT, INTERVAL, BIGINT, NUMERIC, TIMESTAMPTZ);
DROP FUNCTION sidegate_standing(TEXT, TEXT, TEXT, TIMESTAMPTZ);
DROP FUNCTION sidegate_nanos(NUMERIC);
DROP FUNCTION sidegate_lock_quota(TEXT, TEXT, TIMESTAMPTZ);
DROP FUNCTION sidegate_make_quota(TEXT, TEXT, BIGINT, NUMERIC, TIMESTAMPTZ);
DROP FUNCTION sidegate_start_window(TEXT, TEXT, TIMESTAMPTZ);

CREATE OR REPLACE FUNCTION auto_reset_quota_check() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.reset_at IS NULL THEN
        NEW.reset_at := sidegate_next_reset(NEW.project_id, now());
    ELSIF NEW.reset_at <= now() THEN
        NEW.current_tokens_today := 0;
        NEW.current_cost_today := 0;
        NEW.reset_at := sidegate_next_reset(NEW.project_id, now());
    END IF;
    NEW.updated_at := now();
    RETURN NEW;
END $$;


CREATE OR REPLACE FUNCTION reset_all_quotas() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    changed INTEGER;
BEGIN
    UPDATE user_quotas SET
        current_tokens_today = 0,
        current_cost_today = 0,
        reset_at = sidegate_next_reset(project_id, now());
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END $$;

DROP FUNCTION sidegate_day_start(TEXT, TIMESTAMPTZ);
DROP TABLE quota_leases;
DROP TABLE quota_windows;
ALTER TABLE request_traces DROP COLUMN quota;
ALTER TABLE user_quotas
    DROP COLUMN window_no, DROP COLUMN window_started_at, DROP COLUMN held_tokens, DROP COLUMN held_nanos,
    DROP COLUMN burned_tokens, DROP COLUMN burned_nanos, DROP COLUMN starved_at;
