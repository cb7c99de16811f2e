-- Weeks are written with every batch of traces again, as 012 made it; they are summed anew.

LOCK TABLE ONLY request_traces IN SHARE ROW EXCLUSIVE MODE;
LOCK TABLE analytics_usage, analytics_latency IN SHARE ROW EXCLUSIVE MODE;

DROP VIEW analytics_latency_sums;
DROP VIEW analytics_sums;
DROP FUNCTION sidegate_usage_days(DATE, DATE);
DROP FUNCTION sidegate_latency_days(DATE, DATE);

DO $$
DECLARE
    one TEXT;
    trigger RECORD;
BEGIN
    FOREACH one IN ARRAY ARRAY['sidegate_usage_sums_on_insert', 'sidegate_usage_sums_on_update',
        'sidegate_usage_sums_on_delete', 'sidegate_latency_sums_on_insert', 'sidegate_latency_sums_on_update',
        'sidegate_latency_sums_on_delete', 'sidegate_count_traces']
    LOOP
        SELECT tgname, tgrelid::regclass AS relation, pg_get_triggerdef(oid) AS definition INTO STRICT trigger
        FROM pg_trigger WHERE tgfoid = one::regproc;
        EXECUTE format('DROP TRIGGER %I ON %s', trigger.tgname, trigger.relation);
        EXECUTE format('DROP FUNCTION %I()', one);
        EXECUTE format('ALTER FUNCTION %I() RENAME TO %I', one || '_until_013', one);
        EXECUTE trigger.definition;
    END LOOP;
END $$;

DROP FUNCTION sidegate_make_block(DATE);
DROP FUNCTION sidegate_due_block(DATE);
DROP FUNCTION sidegate_latency_block(INTEGER, DATE);
DROP FUNCTION sidegate_user_block(INTEGER, DATE);
DROP FUNCTION sidegate_blocks(DATE, DATE);
DROP FUNCTION sidegate_withdraw_blocks(DATE[]);
DROP TABLE analytics_latency_blocks;
DROP TABLE analytics_user_blocks;
DROP TABLE analytics_blocks;

ALTER TABLE analytics_days RENAME TO analytics_sums;
ALTER TABLE analytics_latency_days RENAME TO analytics_latency_sums;
INSERT INTO analytics_sums SELECT * FROM sidegate_usage_sums('1900-01-01', '9000-01-01') WHERE kind = 'S';
INSERT INTO analytics_latency_sums SELECT * FROM sidegate_latency_sums('1900-01-01', '9000-01-01') WHERE kind <> 'D';
