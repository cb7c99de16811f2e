-- Remove what 012_analytics_speed.sql made: the functions of 003, 008 and 011 stand again as they were.

DROP INDEX request_traces_type_cost_idx;
DROP INDEX request_traces_model_cost_idx;
DROP INDEX request_traces_user_cost_idx;
DROP INDEX request_traces_project_cost_idx;
CREATE INDEX request_traces_project_cost_idx ON request_traces (project_id, total_cost DESC);
DROP INDEX analytics_findings_day_idx;
DROP INDEX analytics_usage_user_idx;
DROP FUNCTION sidegate_nearest_day(TIMESTAMPTZ, TEXT);
DROP FUNCTION sidegate_usage_of_piece(TEXT, TEXT, TIMESTAMPTZ, TIMESTAMPTZ);

LOCK TABLE analytics_usage IN SHARE ROW EXCLUSIVE MODE;
DROP TRIGGER sidegate_count_traces ON request_traces;
DROP FUNCTION sidegate_count_traces();
ALTER FUNCTION sidegate_count_traces_until_012() RENAME TO sidegate_count_traces;
CREATE TRIGGER sidegate_count_traces AFTER INSERT ON request_traces
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION sidegate_count_traces();

DO $$
DECLARE
    one REGPROC;
    made TEXT;
    former TEXT;
    changed TEXT;
    event TEXT;
    name TEXT;
BEGIN
    FOREACH one IN ARRAY ARRAY['sidegate_usage_sums_on_insert', 'sidegate_usage_sums_on_update',
        'sidegate_usage_sums_on_delete', 'sidegate_usage_sums']::regproc[]
    LOOP
        made := pg_get_functiondef(one);
        FOR former, changed IN SELECT * FROM (VALUES
            ($t$CASE WHEN grouping(user_id) = 0$t$, $t$CASE WHEN grouping(week) = 0 THEN 'S' WHEN grouping(user_id) = 0$t$),
            (' AS project_id, day, coalesce(user_id', ' AS project_id, coalesce(day, week) AS day, coalesce(user_id'),
            ('GROUP BY day, shard, fine,', 'GROUP BY shard, fine,'),
            ('((layer, model, request_type), (project_id, request_type), (project_id, user_id, request_type))',
                '((day, layer, model, request_type), (day, project_id, request_type),'
                ' (day, project_id, user_id, request_type), (week, project_id, user_id, request_type))'),
            ('kind AS fine, r.*', $t$kind AS fine, date_trunc('week', day)::date AS week, r.*$t$),
            ('WHERE day >= since AND day < until', $t$WHERE day >= date_trunc('week', since)::date
            AND day < date_trunc('week', until + 6)::date$t$),
            ('(grouping(user_id) = 0)', '(grouping(user_id) = 0) AND (grouping(week) = 0 OR day >= since AND day < until)'),
            ('calls = 0 AND day IN (SELECT day FROM gone)',
            $t$calls = 0 AND day IN (SELECT day FROM gone UNION SELECT date_trunc('week', day)::date FROM gone)$t$)
        ) AS pair LOOP
            made := replace(made, changed, former);
        END LOOP;
        EXECUTE made;
    END LOOP;
    FOREACH name IN ARRAY ARRAY['usage', 'latency'] LOOP
        FOREACH event IN ARRAY ARRAY['insert', 'update'] LOOP
            EXECUTE format('DROP TRIGGER sidegate_%1$s_sums_on_%2$s ON analytics_%1$s', name, event);
            EXECUTE format('CREATE TRIGGER sidegate_%1$s_sums_on_%2$s AFTER %2$s ON analytics_%1$s REFERENCING %3$s
                FOR EACH STATEMENT EXECUTE FUNCTION sidegate_%1$s_sums_on_%2$s()',
                name, event, CASE WHEN event = 'update' THEN 'OLD TABLE AS gone ' ELSE '' END || 'NEW TABLE AS fresh');
        END LOOP;
    END LOOP;
END $$;

DELETE FROM analytics_sums WHERE kind = 'S';
ALTER TABLE analytics_sums DROP CONSTRAINT analytics_sums_kind_check;
ALTER TABLE analytics_sums ADD CONSTRAINT analytics_sums_kind_check CHECK (kind IN ('a', 'p', 's'));

CREATE OR REPLACE FUNCTION sidegate_bucket(us BIGINT) RETURNS smallint LANGUAGE sql IMMUTABLE AS $$
    SELECT round(8 * ln(greatest(us, 125) / 1000.0) / ln(2.0))::smallint
$$;
