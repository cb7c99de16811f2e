-- Days of a user (kind 's' of analytics_sums) by request type, so that users of one type are summed as quickly as users at
-- all: until now their type was only in the finer rows. Undone by 011_analytics_user_types_rollback.sql.
--
-- One column more in one grouping of the functions that 008 made: the triggers, and what a check compares with. Most users
-- send one or two types a day, so a batch of traces writes hardly more rows than before.

DO $$
DECLARE
    one REGPROC;
    made TEXT;
    former CONSTANT TEXT := '(project_id, user_id))';
BEGIN
    LOCK TABLE analytics_usage IN SHARE ROW EXCLUSIVE MODE; -- writers wait until rows and triggers fit again
    FOREACH one IN ARRAY ARRAY['sidegate_usage_sums_on_insert', 'sidegate_usage_sums_on_update',
        'sidegate_usage_sums_on_delete', 'sidegate_usage_sums']::regproc[]
    LOOP
        made := pg_get_functiondef(one);
        IF strpos(made, former) = 0 THEN
            RAISE EXCEPTION '% is not what 008 made', one;
        END IF;
        EXECUTE replace(made, former, '(project_id, user_id, request_type))');
    END LOOP;
END $$;

DELETE FROM analytics_sums WHERE kind = 's';
INSERT INTO analytics_sums SELECT * FROM sidegate_usage_sums('-infinity', 'infinity') WHERE kind = 's';
