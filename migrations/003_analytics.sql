-- Sums of traces, so that a question about months reads some hundred rows. Undone by 003_analytics_rollback.sql.
--
-- A statement trigger on request_traces keeps them: it runs in the transaction that stores the traces, and sees exactly
-- the rows that were new. So sums and traces agree at every moment, a replay changes nothing, a late record counts on the
-- day it belongs to, and plain INSERTs count as well. Moving rows between partitions and dropping old ones changes nothing.
--
-- A day is the calendar day in the project's time zone (UTC for an unknown one) as it was when the trace was stored.

CREATE FUNCTION sidegate_zone(project TEXT) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    zone TEXT := coalesce((SELECT config ->> 'timeZone' FROM projects WHERE id = project), 'UTC');
BEGIN
    RETURN CASE WHEN sidegate_is_time_zone(zone) THEN zone ELSE 'UTC' END;
END $$;

-- One row sums one cell: a day of a user (kind 'u'), or a day ('d') or a quarter of an hour ('q') of a project. Columns
-- before `layer_requests` are figures of traces: each request stands in one row, that of its first call, or that without
-- layer and model if it made none. Columns from there on are figures of calls. So every sum over rows counts everything
-- once: `requests` over all rows, `layer_requests` over the rows of a layer, `model_requests` over those of a model,
-- `pair_requests` over those of a layer and a model.
-- `shard` spreads the rows that every writer changes; sums run over it.
CREATE TABLE analytics_usage (
    kind                "char" NOT NULL CHECK (kind IN ('u', 'd', 'q')),
    project_id          TEXT NOT NULL,
    day                 DATE NOT NULL,
    user_id             TEXT NOT NULL,
    quarter             TIMESTAMPTZ NOT NULL,
    layer               TEXT NOT NULL,
    model               TEXT NOT NULL,
    request_type        TEXT NOT NULL,
    shard               SMALLINT NOT NULL,
    requests            BIGINT NOT NULL,
    errors              BIGINT NOT NULL,
    rejected            BIGINT NOT NULL,
    aborted             BIGINT NOT NULL,
    cache_hits          BIGINT NOT NULL,
    input_tokens        BIGINT NOT NULL,
    cached_input_tokens BIGINT NOT NULL,
    output_tokens       BIGINT NOT NULL,
    cost_nanos          BIGINT NOT NULL,
    timed               BIGINT NOT NULL,
    duration_us         BIGINT NOT NULL,
    layer_requests      BIGINT NOT NULL,
    model_requests      BIGINT NOT NULL,
    pair_requests       BIGINT NOT NULL,
    calls               BIGINT NOT NULL,
    call_errors         BIGINT NOT NULL,
    call_input_tokens   BIGINT NOT NULL,
    call_cached_tokens  BIGINT NOT NULL,
    call_output_tokens  BIGINT NOT NULL,
    call_cost_nanos     BIGINT NOT NULL,
    call_timed          BIGINT NOT NULL,
    call_duration_us    BIGINT NOT NULL,
    PRIMARY KEY (kind, project_id, day, user_id, quarter, layer, model, request_type, shard)
) WITH (fillfactor = 80);

COMMENT ON COLUMN analytics_usage.errors IS 'Neither answered nor left by the client: outcome is not ok and not client_abort';
COMMENT ON COLUMN analytics_usage.rejected IS 'Part of errors: refused before a provider was asked';
COMMENT ON COLUMN analytics_usage.timed IS 'How many have a duration; an interrupted request has none';

-- How long things took, as a histogram: bucket b holds what took about 2^(b/8) ms, so 4.4 percent is its largest error.
-- Rows without layer and model are requests, the others calls.
CREATE TABLE analytics_latency (
    project_id   TEXT NOT NULL,
    day          DATE NOT NULL,
    layer        TEXT NOT NULL,
    model        TEXT NOT NULL,
    request_type TEXT NOT NULL,
    measure      TEXT NOT NULL CHECK (measure IN ('duration', 'first_byte')),
    bucket       SMALLINT NOT NULL,
    shard        SMALLINT NOT NULL,
    number       BIGINT NOT NULL,
    PRIMARY KEY (project_id, day, layer, model, request_type, measure, bucket, shard)
) WITH (fillfactor = 80);

-- The dearest requests of a project.
CREATE INDEX request_traces_project_cost_idx ON request_traces (project_id, total_cost DESC);

-- What a figure in JSON counts: never negative, never beyond `highest`, 0 where it is none. One odd figure must not
-- stop the batch that it came with.
CREATE FUNCTION sidegate_figure(value JSONB, highest NUMERIC) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN jsonb_typeof(value) = 'number' THEN least(greatest(value::numeric, 0), highest)
        WHEN jsonb_typeof(value) = 'string' AND value #>> '{}' ~ '^[0-9]{1,15}(\.[0-9]{1,9})?$'
            THEN least((value #>> '{}')::numeric, highest)
        ELSE 0
    END
$$;

CREATE FUNCTION sidegate_microseconds(ms DOUBLE PRECISION) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN ms IS NOT NULL THEN round(least(greatest(ms, 0), 1e12) * 1000)::bigint END
$$;

CREATE FUNCTION sidegate_bucket(us BIGINT) RETURNS smallint LANGUAGE sql IMMUTABLE AS $$
    SELECT round(8 * ln(greatest(us, 125) / 1000.0) / ln(2.0))::smallint
$$;

CREATE FUNCTION sidegate_quarter(at TIMESTAMPTZ) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT to_timestamp(floor(extract(epoch FROM at) / 900) * 900)
$$;

-- Whether an answer came from the cache, by the decisions in its trace.
CREATE FUNCTION sidegate_is_cached(decisions JSONB) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT decisions @> '[{"cache": "hit"}]'
$$;

-- The same sums in three places: of new rows (the trigger), and of stored ones (sidegate_usage, sidegate_latency).
-- Figures of one request are cut at 10^15, so that no sum of them leaves its column.
DO $$
DECLARE
    facts CONSTANT TEXT := $sql$
        WITH stored AS MATERIALIZED (
            SELECT id, created_at, coalesce(project_id, '') AS project_id, coalesce(user_id, '') AS user_id,
                coalesce(request_type, '') AS request_type, outcome, model,
                least(greatest(coalesce(input_tokens, 0), 0), 1000000000000000) AS input_tokens,
                least(greatest(coalesce(cached_input_tokens, 0), 0), 1000000000000000) AS cached_input_tokens,
                least(greatest(coalesce(output_tokens, 0), 0), 1000000000000000) AS output_tokens,
                (least(greatest(coalesce(total_cost, 0), 0), 1000000) * 1000000000)::bigint AS cost_nanos,
                sidegate_microseconds(total_duration_ms) AS duration_us,
                sidegate_microseconds(first_byte_ms) AS first_byte_us,
                sidegate_is_cached(routing_decisions) AS is_cached, llm_calls
            FROM {source}
        ), zone AS MATERIALIZED (
            SELECT project_id, sidegate_zone(project_id) AS zone FROM (SELECT DISTINCT project_id FROM stored) AS p
        ), request AS MATERIALIZED (
            SELECT s.*, (s.created_at AT TIME ZONE z.zone)::date AS day, sidegate_quarter(s.created_at) AS quarter
            FROM stored s JOIN zone z USING (project_id)
        ), call AS MATERIALIZED (
            SELECT r.id, c.position,
                left(coalesce(nullif(c.entry ->> 'layer', ''), 'none'), 64) AS layer,
                left(coalesce(nullif(c.entry ->> 'model', ''), nullif(c.entry ->> 'responseModel', ''),
                    nullif(r.model, ''), 'unknown'), 256) AS model,
                CASE
                    WHEN sidegate_figure(c.entry -> 'status', 1000) >= 400 THEN 1
                    -- The client left during its last call: that is not the provider's failure.
                    WHEN r.outcome = 'client_abort' AND c.position = jsonb_array_length(r.llm_calls) THEN 0
                    WHEN sidegate_figure(c.entry -> 'status', 1000) < 100 THEN 1
                    WHEN coalesce(c.entry -> 'error', 'null') <> 'null' THEN 1
                    ELSE 0
                END AS errors,
                sidegate_figure(c.entry -> 'inputTokens', 1000000000000000)::bigint AS input_tokens,
                sidegate_figure(c.entry -> 'cachedInputTokens', 1000000000000000)::bigint AS cached_input_tokens,
                sidegate_figure(c.entry -> 'outputTokens', 1000000000000000)::bigint AS output_tokens,
                (sidegate_figure(c.entry -> 'cost', 1000000) * 1000000000)::bigint AS cost_nanos,
                CASE WHEN jsonb_typeof(c.entry -> 'durationMs') = 'number'
                    THEN round(sidegate_figure(c.entry -> 'durationMs', 1000000000000) * 1000)::bigint
                END AS duration_us,
                CASE WHEN jsonb_typeof(c.entry -> 'firstByteMs') = 'number'
                    THEN round(sidegate_figure(c.entry -> 'firstByteMs', 1000000000000) * 1000)::bigint
                END AS first_byte_us
            FROM request r CROSS JOIN LATERAL jsonb_array_elements(r.llm_calls) WITH ORDINALITY AS c(entry, position)
        ), line AS MATERIALIZED (
            SELECT r.project_id, r.day, r.quarter, r.user_id, r.request_type, coalesce(c.layer, '') AS layer,
                coalesce(c.model, '') AS model, coalesce(c.position, 1) = 1 AS is_first,
                r.outcome, r.is_cached, r.input_tokens, r.cached_input_tokens, r.output_tokens, r.cost_nanos,
                r.duration_us, r.first_byte_us, c.id IS NOT NULL AS is_call, c.errors AS call_errors,
                row_number() OVER (PARTITION BY r.id, c.layer ORDER BY c.position) = 1 AS is_first_of_layer,
                row_number() OVER (PARTITION BY r.id, c.model ORDER BY c.position) = 1 AS is_first_of_model,
                row_number() OVER (PARTITION BY r.id, c.layer, c.model ORDER BY c.position) = 1 AS is_first_of_pair,
                c.input_tokens AS call_input_tokens, c.cached_input_tokens AS call_cached_tokens,
                c.output_tokens AS call_output_tokens, c.cost_nanos AS call_cost_nanos,
                c.duration_us AS call_duration_us, c.first_byte_us AS call_first_byte_us
            FROM request r LEFT JOIN call c ON c.id = r.id
        )
    $sql$;
    usage CONSTANT TEXT := $sql$
        SELECT (CASE WHEN grouping(user_id) = 0 THEN 'u' WHEN grouping(quarter) = 0 THEN 'q' ELSE 'd' END)::"char" AS kind,
            project_id, day, coalesce(user_id, '') AS user_id, coalesce(quarter, '-infinity') AS quarter,
            layer, model, request_type,
            CASE WHEN grouping(user_id) = 0 THEN 0 ELSE {shard} END::smallint AS shard,
            count(*) FILTER (WHERE is_first) AS requests,
            count(*) FILTER (WHERE is_first AND outcome IS DISTINCT FROM 'ok'
                AND outcome IS DISTINCT FROM 'client_abort') AS errors,
            count(*) FILTER (WHERE is_first AND outcome = 'rejected') AS rejected,
            count(*) FILTER (WHERE is_first AND outcome = 'client_abort') AS aborted,
            count(*) FILTER (WHERE is_first AND is_cached) AS cache_hits,
            coalesce(sum(input_tokens) FILTER (WHERE is_first), 0)::bigint AS input_tokens,
            coalesce(sum(cached_input_tokens) FILTER (WHERE is_first), 0)::bigint AS cached_input_tokens,
            coalesce(sum(output_tokens) FILTER (WHERE is_first), 0)::bigint AS output_tokens,
            coalesce(sum(cost_nanos) FILTER (WHERE is_first), 0)::bigint AS cost_nanos,
            count(duration_us) FILTER (WHERE is_first) AS timed,
            coalesce(sum(duration_us) FILTER (WHERE is_first), 0)::bigint AS duration_us,
            count(*) FILTER (WHERE is_call AND is_first_of_layer) AS layer_requests,
            count(*) FILTER (WHERE is_call AND is_first_of_model) AS model_requests,
            count(*) FILTER (WHERE is_call AND is_first_of_pair) AS pair_requests,
            count(*) FILTER (WHERE is_call) AS calls, coalesce(sum(call_errors), 0)::bigint AS call_errors,
            coalesce(sum(call_input_tokens), 0)::bigint AS call_input_tokens,
            coalesce(sum(call_cached_tokens), 0)::bigint AS call_cached_tokens,
            coalesce(sum(call_output_tokens), 0)::bigint AS call_output_tokens,
            coalesce(sum(call_cost_nanos), 0)::bigint AS call_cost_nanos, count(call_duration_us) AS call_timed,
            coalesce(sum(call_duration_us), 0)::bigint AS call_duration_us
        FROM line
        GROUP BY project_id, day, layer, model, request_type, GROUPING SETS ((), (user_id), (quarter))
    $sql$;
    latency CONSTANT TEXT := $sql$
        SELECT project_id, day, m.layer, m.model, request_type, m.measure, sidegate_bucket(m.us) AS bucket,
            {shard}::smallint AS shard, count(*) AS number
        FROM line CROSS JOIN LATERAL (VALUES
            ('', '', 'duration', CASE WHEN is_first THEN duration_us END),
            ('', '', 'first_byte', CASE WHEN is_first THEN first_byte_us END),
            (layer, model, 'duration', call_duration_us),
            (layer, model, 'first_byte', call_first_byte_us)) AS m(layer, model, measure, us)
        WHERE m.us IS NOT NULL
        GROUP BY project_id, day, m.layer, m.model, request_type, m.measure, sidegate_bucket(m.us)
    $sql$;
    -- In the order of their keys, so that two writers never wait for each other.
    counting CONSTANT TEXT := $sql$
        CREATE FUNCTION sidegate_count_traces() RETURNS trigger LANGUAGE plpgsql AS $body$
        #variable_conflict use_column
        BEGIN
            {facts}, taken AS (
                INSERT INTO analytics_latency AS a {latency} ORDER BY 1, 2, 3, 4, 5, 6, 7, 8
                ON CONFLICT (project_id, day, layer, model, request_type, measure, bucket, shard)
                    DO UPDATE SET number = a.number + excluded.number
            )
            INSERT INTO analytics_usage AS a {usage} ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9
            ON CONFLICT (kind, project_id, day, user_id, quarter, layer, model, request_type, shard) DO UPDATE SET
                requests = a.requests + excluded.requests, errors = a.errors + excluded.errors,
                rejected = a.rejected + excluded.rejected, aborted = a.aborted + excluded.aborted,
                cache_hits = a.cache_hits + excluded.cache_hits, input_tokens = a.input_tokens + excluded.input_tokens,
                cached_input_tokens = a.cached_input_tokens + excluded.cached_input_tokens,
                output_tokens = a.output_tokens + excluded.output_tokens,
                cost_nanos = a.cost_nanos + excluded.cost_nanos, timed = a.timed + excluded.timed,
                duration_us = a.duration_us + excluded.duration_us,
                layer_requests = a.layer_requests + excluded.layer_requests,
                model_requests = a.model_requests + excluded.model_requests,
                pair_requests = a.pair_requests + excluded.pair_requests, calls = a.calls + excluded.calls,
                call_errors = a.call_errors + excluded.call_errors,
                call_input_tokens = a.call_input_tokens + excluded.call_input_tokens,
                call_cached_tokens = a.call_cached_tokens + excluded.call_cached_tokens,
                call_output_tokens = a.call_output_tokens + excluded.call_output_tokens,
                call_cost_nanos = a.call_cost_nanos + excluded.call_cost_nanos,
                call_timed = a.call_timed + excluded.call_timed,
                call_duration_us = a.call_duration_us + excluded.call_duration_us;
            RETURN NULL;
        END $body$ $sql$;
    reading CONSTANT TEXT := $sql$
        CREATE FUNCTION sidegate_%1$s(project TEXT, caller TEXT, since TIMESTAMPTZ, until TIMESTAMPTZ)
        RETURNS SETOF analytics_%1$s LANGUAGE sql STABLE AS $body$ {facts} {sums} $body$ $sql$;
    shard CONSTANT TEXT := '(pg_backend_pid() % 8)';
    -- '' are the requests whose project, or user, was never known. NULL asks for all.
    source CONSTANT TEXT := $sql$request_traces WHERE created_at >= $3 AND created_at < $4
        AND ($1 IS NULL OR project_id = nullif($1, '') OR ($1 = '' AND project_id IS NULL))
        AND ($2 IS NULL OR user_id = nullif($2, '') OR ($2 = '' AND user_id IS NULL))$sql$;
BEGIN
    EXECUTE replace(replace(replace(replace(replace(counting, '{usage}', usage), '{latency}', latency),
        '{facts}', facts), '{source}', 'fresh'), '{shard}', shard);
    EXECUTE replace(replace(replace(replace(format(reading, 'usage'), '{facts}', facts), '{sums}', usage),
        '{source}', source), '{shard}', '0');
    EXECUTE replace(replace(replace(replace(format(reading, 'latency'), '{facts}', facts), '{sums}', latency),
        '{source}', source), '{shard}', '0');
END $$;

CREATE TRIGGER sidegate_count_traces AFTER INSERT ON request_traces
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION sidegate_count_traces();

-- From a moment to a moment in the days of one project: whole days, and the pieces of days before and after them.
CREATE FUNCTION sidegate_span(
    zone TEXT, since TIMESTAMPTZ, until TIMESTAMPTZ,
    OUT first_day DATE, OUT past_day DATE, OUT head_since TIMESTAMPTZ, OUT head_until TIMESTAMPTZ,
    OUT tail_since TIMESTAMPTZ, OUT tail_until TIMESTAMPTZ
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    first_day := (since AT TIME ZONE zone)::date;
    past_day := (until AT TIME ZONE zone)::date;
    IF first_day::timestamp AT TIME ZONE zone < since THEN
        first_day := first_day + 1;
        head_since := since;
        head_until := least(first_day::timestamp AT TIME ZONE zone, until);
    END IF;
    IF past_day >= first_day AND past_day::timestamp AT TIME ZONE zone < until THEN
        tail_since := past_day::timestamp AT TIME ZONE zone;
        tail_until := until;
    END IF;
END $$;

-- Traces that are there already. The trigger stands, so writers wait until this is committed.
INSERT INTO analytics_usage SELECT * FROM sidegate_usage(NULL, NULL, '-infinity', 'infinity');
INSERT INTO analytics_latency SELECT * FROM sidegate_latency(NULL, NULL, '-infinity', 'infinity');
