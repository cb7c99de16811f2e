-- Days of a user without their type again, as 008 made them.

DO $$
DECLARE
    one REGPROC;
BEGIN
    LOCK TABLE analytics_usage IN SHARE ROW EXCLUSIVE MODE;
    FOREACH one IN ARRAY ARRAY['sidegate_usage_sums_on_insert', 'sidegate_usage_sums_on_update',
        'sidegate_usage_sums_on_delete', 'sidegate_usage_sums']::regproc[]
    LOOP
        EXECUTE replace(pg_get_functiondef(one), '(project_id, user_id, request_type))', '(project_id, user_id))');
    END LOOP;
END $$;

DELETE FROM analytics_sums WHERE kind = 's';
INSERT INTO analytics_sums SELECT * FROM sidegate_usage_sums('-infinity', 'infinity') WHERE kind = 's';
