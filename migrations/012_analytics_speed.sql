-- Questions about months of ten million traces in less than a tenth of a second, and traces stored with half the work.
-- Undone by 012_analytics_speed_rollback.sql.
--
-- Functions of 003 and 008 are changed where they stand: each change is a pair of texts, so that the way back is the same
-- list read the other way.

-- A bucket is found with double precision: numeric logarithms took a sixth of the time of a batch. The limits of buckets
-- are irrational and durations whole microseconds, so none below a hundred days is near enough to a limit to get another.
CREATE OR REPLACE FUNCTION sidegate_bucket(us BIGINT) RETURNS smallint LANGUAGE sql IMMUTABLE AS $$
    SELECT round(8 * ln(greatest(us, 125) / 1000.0::double precision) / ln(2.0::double precision))::smallint
$$;

-- A new kind of analytics_sums, 'S': a week of a user by type, from Monday, like the weeks of analytics_latency_sums.
LOCK TABLE analytics_usage IN SHARE ROW EXCLUSIVE MODE; -- writers wait until rows and functions fit again
ALTER TABLE analytics_sums DROP CONSTRAINT analytics_sums_kind_check;
ALTER TABLE analytics_sums ADD CONSTRAINT analytics_sums_kind_check CHECK (kind IN ('a', 'p', 's', 'S'));

DO $$
DECLARE
    one REGPROC;
    made TEXT;
    former TEXT;
    changed TEXT;
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
            ('kind AS fine, r.*', $t$kind AS fine, date_trunc('week', day)::date AS week, r.*$t$)
        ) AS pair LOOP
            IF strpos(made, former) = 0 THEN
                RAISE EXCEPTION '% is not what 008 and 011 made', one;
            END IF;
            made := replace(made, former, changed);
        END LOOP;
        -- Those of the weeks that some days touch, and those of days within them.
        made := replace(made, 'WHERE day >= since AND day < until', $t$WHERE day >= date_trunc('week', since)::date
            AND day < date_trunc('week', until + 6)::date$t$);
        IF one = 'sidegate_usage_sums'::regproc THEN
            made := replace(made, '(grouping(user_id) = 0)',
                '(grouping(user_id) = 0) AND (grouping(week) = 0 OR day >= since AND day < until)');
        END IF;
        made := replace(made, 'calls = 0 AND day IN (SELECT day FROM gone)',
            $t$calls = 0 AND day IN (SELECT day FROM gone UNION SELECT date_trunc('week', day)::date FROM gone)$t$);
        EXECUTE made;
    END LOOP;
END $$;

INSERT INTO analytics_sums SELECT * FROM sidegate_usage_sums('1900-01-01', '9000-01-01') WHERE kind = 'S';

-- What counts new traces now writes all sums in one statement, from the rows that it has at hand. The triggers of 008 see
-- every change but this one: they read each batch three times, as rows that came, that went and that are.
ALTER FUNCTION sidegate_count_traces() RENAME TO sidegate_count_traces_until_012;
DROP TRIGGER sidegate_count_traces ON request_traces;

DO $$
DECLARE
    parts TEXT[];
    counting TEXT;
    kept CONSTANT TEXT := $re$WITH change AS MATERIALIZED .* FROM )fresh( r\).*\.[a-z_]+);\s*RETURN NULL$re$;
    usage_sums TEXT[];
    latency_sums TEXT[];
    event TEXT;
    name TEXT;
BEGIN
    SELECT prosrc INTO counting FROM pg_proc WHERE oid = 'sidegate_count_traces_until_012'::regproc;
    parts := regexp_match(counting, '^(.*), taken AS \(\s*INSERT INTO analytics_latency AS a (.*) '
        '(ORDER BY 1, 2, 3, 4, 5, 6, 7, 8\s+ON CONFLICT .*\.number)\s*\)\s*'
        'INSERT INTO analytics_usage AS a (.*) (ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9\s.*)$');
    SELECT regexp_match(prosrc, '(' || kept) INTO usage_sums FROM pg_proc
    WHERE oid = 'sidegate_usage_sums_on_insert'::regproc;
    SELECT regexp_match(prosrc, '(' || kept) INTO latency_sums FROM pg_proc
    WHERE oid = 'sidegate_latency_sums_on_insert'::regproc;
    IF parts IS NULL OR usage_sums IS NULL OR latency_sums IS NULL THEN
        RAISE EXCEPTION 'the functions that count are not what 003 and 008 made';
    END IF;
    EXECUTE 'CREATE FUNCTION sidegate_count_traces() RETURNS trigger LANGUAGE plpgsql AS $body$' || concat_ws(' ',
        parts[1], ', times AS MATERIALIZED (', parts[2], '), cells AS MATERIALIZED (', parts[4],
        '), taken AS (INSERT INTO analytics_latency AS a SELECT * FROM times', parts[3],
        '), summed AS (', usage_sums[1] || 'cells' || usage_sums[2],
        '), taken_and_summed AS (', latency_sums[1] || 'times' || latency_sums[2],
        ') INSERT INTO analytics_usage AS a SELECT * FROM cells', parts[5]) || '$body$';
    FOREACH name IN ARRAY ARRAY['usage', 'latency'] LOOP
        FOREACH event IN ARRAY ARRAY['insert', 'update'] LOOP
            EXECUTE format('DROP TRIGGER sidegate_%1$s_sums_on_%2$s ON analytics_%1$s', name, event);
            EXECUTE format('CREATE TRIGGER sidegate_%1$s_sums_on_%2$s AFTER %2$s ON analytics_%1$s REFERENCING %3$s
                FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION sidegate_%1$s_sums_on_%2$s()',
                name, event, CASE WHEN event = 'update' THEN 'OLD TABLE AS gone ' ELSE '' END || 'NEW TABLE AS fresh');
        END LOOP;
    END LOOP;
END $$;

CREATE TRIGGER sidegate_count_traces AFTER INSERT ON request_traces
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION sidegate_count_traces();

-- The sums of a piece of a day, from its traces. Planned with its moments at hand, so for one or two partitions: as a part
-- of a larger statement all of them would be planned, which takes longer than reading.
CREATE FUNCTION sidegate_usage_of_piece(project TEXT, caller TEXT, since TIMESTAMPTZ, until TIMESTAMPTZ)
RETURNS SETOF analytics_usage LANGUAGE plpgsql STABLE ROWS 100 AS $$
BEGIN
    RETURN QUERY EXECUTE 'SELECT * FROM sidegate_usage($1, $2, $3, $4) WHERE kind = $5'
        USING project, caller, since, until, CASE WHEN caller IS NULL THEN 'd' ELSE 'u' END::"char";
END $$;

-- The day whose beginning is nearest to a moment. What has not come yet has no length.
CREATE FUNCTION sidegate_nearest_day(at TIMESTAMPTZ, zone TEXT) RETURNS date LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN least((day + 1)::timestamp AT TIME ZONE zone, now()) - at < at - day::timestamp AT TIME ZONE zone
        THEN day + 1 ELSE day END
    FROM (SELECT (at AT TIME ZONE zone)::date AS day) AS d
$$;

-- All days of one user, in whatever project.
CREATE INDEX analytics_usage_user_idx ON analytics_usage (user_id, project_id, day) WHERE kind = 'u';
CREATE INDEX analytics_findings_day_idx ON analytics_findings (day);

-- The dearest requests by each filter. The columns behind the cost are looked at in the index, before the row is fetched.
DROP INDEX request_traces_project_cost_idx;
CREATE INDEX request_traces_project_cost_idx ON request_traces (project_id, total_cost DESC, user_id, model, request_type)
    WHERE total_cost > 0;
CREATE INDEX request_traces_user_cost_idx ON request_traces (user_id, total_cost DESC, model, request_type)
    WHERE total_cost > 0;
CREATE INDEX request_traces_model_cost_idx ON request_traces (model, total_cost DESC, request_type) WHERE total_cost > 0;
CREATE INDEX request_traces_type_cost_idx ON request_traces (request_type, total_cost DESC) WHERE total_cost > 0;
