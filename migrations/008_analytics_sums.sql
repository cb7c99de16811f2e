-- Sums of the sums of 003, so that questions about everybody read few rows too, and findings of the policy by rule.
-- Undone by 008_analytics_sums_rollback.sql.
--
-- Triggers on analytics_usage and analytics_latency keep them by the difference of every change, whoever made it: the
-- trigger that counts traces, a rebuild, an operator. They keep the shard of the rows that they sum, so for each shard the
-- coarse rows are at every moment exactly the sums of the fine ones, and two writers meet where they met before.

-- 'a': a day of all projects; 'p': a day of a project by type; 's': a day of a user. The columns are those of
-- analytics_usage; what a kind does not tell apart is ''. A day is that of each project's own zone.
CREATE TABLE analytics_sums (
    LIKE analytics_usage,
    PRIMARY KEY (kind, project_id, day, user_id, layer, model, request_type, shard)
) WITH (fillfactor = 80);
ALTER TABLE analytics_sums ADD CHECK (kind IN ('a', 'p', 's'));

-- 'w': a week of a project; 'D': a day of all projects, 'W': a week. `day` is the first one; weeks begin on Monday.
CREATE TABLE analytics_latency_sums (
    kind "char" NOT NULL CHECK (kind IN ('w', 'D', 'W')),
    LIKE analytics_latency,
    PRIMARY KEY (kind, project_id, day, layer, model, request_type, measure, bucket, shard)
) WITH (fillfactor = 80);

-- Findings of the policy, by day of a project. A rule without a name: findings beyond what a trace keeps.
CREATE TABLE analytics_findings (
    project_id TEXT NOT NULL,
    day        DATE NOT NULL,
    direction  TEXT NOT NULL,
    rule       TEXT NOT NULL,
    category   TEXT NOT NULL,
    action     TEXT NOT NULL,
    shard      SMALLINT NOT NULL,
    findings   BIGINT NOT NULL,
    requests   BIGINT NOT NULL,
    PRIMARY KEY (project_id, day, direction, rule, category, action, shard)
) WITH (fillfactor = 80);

DO $$
DECLARE
    usage CONSTANT TEXT := $sql$
        SELECT (CASE WHEN grouping(user_id) = 0 THEN 's' WHEN grouping(layer) = 0 THEN 'a' ELSE 'p' END)::"char" AS kind,
            coalesce(project_id, '') AS project_id, day, coalesce(user_id, '') AS user_id,
            '-infinity'::timestamptz AS quarter, coalesce(layer, '') AS layer, coalesce(model, '') AS model,
            coalesce(request_type, '') AS request_type, shard,
            sum(sign * requests)::bigint AS requests, sum(sign * errors)::bigint AS errors,
            sum(sign * rejected)::bigint AS rejected, sum(sign * aborted)::bigint AS aborted,
            sum(sign * cache_hits)::bigint AS cache_hits, sum(sign * input_tokens)::bigint AS input_tokens,
            sum(sign * cached_input_tokens)::bigint AS cached_input_tokens,
            sum(sign * output_tokens)::bigint AS output_tokens, sum(sign * cost_nanos)::bigint AS cost_nanos,
            sum(sign * timed)::bigint AS timed, sum(sign * duration_us)::bigint AS duration_us,
            sum(sign * layer_requests)::bigint AS layer_requests, sum(sign * model_requests)::bigint AS model_requests,
            sum(sign * pair_requests)::bigint AS pair_requests, sum(sign * calls)::bigint AS calls,
            sum(sign * call_errors)::bigint AS call_errors, sum(sign * call_input_tokens)::bigint AS call_input_tokens,
            sum(sign * call_cached_tokens)::bigint AS call_cached_tokens,
            sum(sign * call_output_tokens)::bigint AS call_output_tokens,
            sum(sign * call_cost_nanos)::bigint AS call_cost_nanos, sum(sign * call_timed)::bigint AS call_timed,
            sum(sign * call_duration_us)::bigint AS call_duration_us
        FROM change
        WHERE fine IN ('d', 'u')
        GROUP BY day, shard, fine,
            GROUPING SETS ((layer, model, request_type), (project_id, request_type), (project_id, user_id))
        HAVING (fine = 'u') = (grouping(user_id) = 0)
    $sql$;
    latency CONSTANT TEXT := $sql$
        SELECT (CASE WHEN grouping(project_id) = 0 THEN 'w' WHEN grouping(day) = 0 THEN 'D' ELSE 'W' END)::"char" AS kind,
            coalesce(project_id, '') AS project_id, coalesce(day, week) AS day, layer, model, request_type, measure,
            bucket, shard, sum(sign * number)::bigint AS number
        FROM change
        GROUP BY layer, model, request_type, measure, bucket, shard, GROUPING SETS ((project_id, week), (day), (week))
    $sql$;
    fine_usage CONSTANT TEXT := 'SELECT %s AS sign, kind AS fine, r.* FROM %s r';
    fine_latency CONSTANT TEXT := $sql$SELECT %s AS sign, date_trunc('week', day)::date AS week, r.* FROM %s r$sql$;
    -- In the order of their keys, so that two writers never wait for each other.
    keep_usage CONSTANT TEXT := $sql$
        WITH change AS MATERIALIZED ({change})
        INSERT INTO analytics_sums AS a {sums} ORDER BY 1, 2, 3, 4, 6, 7, 8, 9
        ON CONFLICT (kind, project_id, day, user_id, layer, model, request_type, shard) DO UPDATE SET
            requests = a.requests + excluded.requests, errors = a.errors + excluded.errors,
            rejected = a.rejected + excluded.rejected, aborted = a.aborted + excluded.aborted,
            cache_hits = a.cache_hits + excluded.cache_hits, input_tokens = a.input_tokens + excluded.input_tokens,
            cached_input_tokens = a.cached_input_tokens + excluded.cached_input_tokens,
            output_tokens = a.output_tokens + excluded.output_tokens, cost_nanos = a.cost_nanos + excluded.cost_nanos,
            timed = a.timed + excluded.timed, duration_us = a.duration_us + excluded.duration_us,
            layer_requests = a.layer_requests + excluded.layer_requests,
            model_requests = a.model_requests + excluded.model_requests,
            pair_requests = a.pair_requests + excluded.pair_requests, calls = a.calls + excluded.calls,
            call_errors = a.call_errors + excluded.call_errors,
            call_input_tokens = a.call_input_tokens + excluded.call_input_tokens,
            call_cached_tokens = a.call_cached_tokens + excluded.call_cached_tokens,
            call_output_tokens = a.call_output_tokens + excluded.call_output_tokens,
            call_cost_nanos = a.call_cost_nanos + excluded.call_cost_nanos,
            call_timed = a.call_timed + excluded.call_timed, call_duration_us = a.call_duration_us + excluded.call_duration_us;
        $sql$;
    forget_usage CONSTANT TEXT := $sql$
        DELETE FROM analytics_sums WHERE requests = 0 AND calls = 0 AND day IN (SELECT day FROM gone);
        $sql$;
    keep_latency CONSTANT TEXT := $sql$
        WITH change AS MATERIALIZED ({change})
        INSERT INTO analytics_latency_sums AS a {sums} ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9
        ON CONFLICT (kind, project_id, day, layer, model, request_type, measure, bucket, shard)
            DO UPDATE SET number = a.number + excluded.number;
        $sql$;
    forget_latency CONSTANT TEXT := $sql$
        DELETE FROM analytics_latency_sums
        WHERE number = 0 AND day IN (SELECT day FROM gone UNION SELECT date_trunc('week', day)::date FROM gone);
        $sql$;
    body CONSTANT TEXT := $sql$
        CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $body$
        #variable_conflict use_column
        BEGIN
            {statements}
            RETURN NULL;
        END $body$ $sql$;
    reading CONSTANT TEXT := $sql$
        CREATE FUNCTION sidegate_{name}(since DATE, until DATE) RETURNS SETOF {table} LANGUAGE sql STABLE AS $body$
            WITH change AS ({change}) {sums} $body$ $sql$;
    one RECORD;
    event TEXT;
    change TEXT;
    given TEXT;
BEGIN
    FOR one IN SELECT * FROM (VALUES
        ('analytics_usage', 'analytics_sums', 'usage_sums', fine_usage, usage, keep_usage, forget_usage,
            'day >= since AND day < until'),
        ('analytics_latency', 'analytics_latency_sums', 'latency_sums', fine_latency, latency, keep_latency,
            forget_latency, $sql$day >= date_trunc('week', since)::date
                AND day < date_trunc('week', until + 6)::date$sql$)
    ) AS kept(fine, coarse, name, rows, sums, keep, forget, within)
    LOOP
        FOREACH event IN ARRAY ARRAY['insert', 'update', 'delete'] LOOP
            change := concat_ws(' UNION ALL ', CASE WHEN event <> 'delete' THEN format(one.rows, '1', 'fresh') END,
                CASE WHEN event <> 'insert' THEN format(one.rows, '-1', 'gone') END);
            given := concat_ws(' ', CASE WHEN event <> 'insert' THEN 'OLD TABLE AS gone' END,
                CASE WHEN event <> 'delete' THEN 'NEW TABLE AS fresh' END);
            EXECUTE replace(replace(replace(replace(body, '{name}', format('sidegate_%s_on_%s', one.name, event)),
                '{statements}', one.keep || CASE WHEN event = 'delete' THEN one.forget ELSE '' END),
                '{sums}', one.sums), '{change}', change);
            EXECUTE format('CREATE TRIGGER sidegate_%1$s_on_%2$s AFTER %2$s ON %3$I REFERENCING %4$s
                FOR EACH STATEMENT EXECUTE FUNCTION sidegate_%1$s_on_%2$s()', one.name, event, one.fine, given);
        END LOOP;
        -- What the coarse rows of some days, or of the weeks that they touch, are by the fine ones.
        EXECUTE replace(replace(replace(replace(reading, '{name}', one.name), '{table}', one.coarse), '{sums}', one.sums),
            '{change}', format(one.rows, '1', one.fine) || ' WHERE ' || one.within);
    END LOOP;
END $$;

-- What is no array counts nothing: one odd row must not stop the batch that it came with.
DO $$
DECLARE
    findings CONSTANT TEXT := $sql$
        WITH found AS MATERIALIZED (
            SELECT id, created_at, coalesce(project_id, '') AS project_id, policy FROM {source}
            WHERE policy ?| ARRAY['findings', 'moreFindings'] {range}
        ), zone AS MATERIALIZED (
            SELECT project_id, sidegate_zone(project_id) AS zone FROM (SELECT DISTINCT project_id FROM found) AS p
        )
        SELECT project_id, (f.created_at AT TIME ZONE zone)::date AS day, left(coalesce(one ->> 'direction', ''), 64),
            left(coalesce(one ->> 'rule', ''), 256), left(coalesce(one ->> 'category', ''), 64),
            left(coalesce(one ->> 'action', ''), 64), {shard}::smallint, sum(number)::bigint, count(DISTINCT f.id)
        FROM found f JOIN zone USING (project_id) CROSS JOIN LATERAL (
            SELECT entry AS one, 1::numeric AS number
            FROM jsonb_array_elements(CASE WHEN jsonb_typeof(f.policy -> 'findings') = 'array' THEN f.policy -> 'findings'
                ELSE '[]' END) AS entry WHERE jsonb_typeof(entry) = 'object'
            UNION ALL
            SELECT '{}', round(sidegate_figure(f.policy -> 'moreFindings', 1000000000)) WHERE f.policy ? 'moreFindings'
        ) AS entries
        GROUP BY 1, 2, 3, 4, 5, 6
    $sql$;
    counting CONSTANT TEXT := $sql$
        CREATE FUNCTION sidegate_count_findings() RETURNS trigger LANGUAGE plpgsql AS $body$
        BEGIN
            INSERT INTO analytics_findings AS a {findings} ORDER BY 1, 2, 3, 4, 5, 6
            ON CONFLICT (project_id, day, direction, rule, category, action, shard)
                DO UPDATE SET findings = a.findings + excluded.findings, requests = a.requests + excluded.requests;
            RETURN NULL;
        END $body$ $sql$;
    reading CONSTANT TEXT := $sql$
        CREATE FUNCTION sidegate_findings(project TEXT, since TIMESTAMPTZ, until TIMESTAMPTZ)
        RETURNS SETOF analytics_findings LANGUAGE sql STABLE AS $body$ {findings} $body$ $sql$;
    range CONSTANT TEXT := $sql$AND created_at >= $2 AND created_at < $3
        AND ($1 IS NULL OR project_id = nullif($1, '') OR ($1 = '' AND project_id IS NULL))$sql$;
BEGIN
    EXECUTE replace(replace(replace(replace(counting, '{findings}', findings), '{source}', 'fresh'), '{range}', ''),
        '{shard}', '(pg_backend_pid() % 8)');
    EXECUTE replace(replace(replace(replace(reading, '{findings}', findings), '{source}', 'request_traces'),
        '{range}', range), '{shard}', '0');
END $$;

CREATE TRIGGER sidegate_count_findings AFTER INSERT ON request_traces
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION sidegate_count_findings();

-- Sums and traces that are there already. The triggers stand, so writers wait until this is committed.
INSERT INTO analytics_sums SELECT * FROM sidegate_usage_sums('-infinity', 'infinity');
INSERT INTO analytics_latency_sums SELECT * FROM sidegate_latency_sums('1900-01-01', '9000-01-01');
INSERT INTO analytics_findings SELECT * FROM sidegate_findings(NULL, '-infinity', 'infinity');
