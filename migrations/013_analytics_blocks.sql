-- Weeks of users and of histograms are no longer written with every batch of traces: past days are summed in blocks of 2, 4,
-- .. 64 days instead, once, by whoever maintains the database. Undone by 013_analytics_blocks_rollback.sql.
--
-- A block is only a copy of sums of days, which stay exact at every moment: whatever changes one of its days withdraws it
-- in the same transaction, and questions read the days themselves until it is made again. So a late trace, a rebuild and
-- an UPDATE by hand are all right without any arithmetic of their own. A range of n days is read from about 2 log2(n)
-- blocks and the days that no block covers yet.

LOCK TABLE ONLY request_traces IN SHARE ROW EXCLUSIVE MODE; -- writers wait here, before they hold anything
LOCK TABLE analytics_usage, analytics_latency IN SHARE ROW EXCLUSIVE MODE;

DELETE FROM analytics_sums WHERE kind = 'S';
DELETE FROM analytics_latency_sums WHERE kind IN ('w', 'W');
ALTER TABLE analytics_sums RENAME TO analytics_days;
ALTER TABLE analytics_latency_sums RENAME TO analytics_latency_days;

-- Which blocks are there. Blocks of n days begin where the days since 1970 are a multiple of n.
CREATE TABLE analytics_blocks (
    days      INTEGER NOT NULL CHECK (days IN (2, 4, 8, 16, 32, 64)),
    first_day DATE NOT NULL,
    PRIMARY KEY (days, first_day)
);

CREATE TABLE analytics_user_blocks (
    days                INTEGER NOT NULL,
    first_day           DATE NOT NULL,
    project_id          TEXT NOT NULL,
    user_id             TEXT NOT NULL,
    request_type        TEXT NOT NULL,
    requests            BIGINT NOT NULL,
    calls               BIGINT NOT NULL,
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
    PRIMARY KEY (days, first_day, project_id, user_id, request_type)
);

-- Histograms as two arrays: `numbers[i]` things took the time of `buckets[i]`. Of one project, or of all (`is_all`).
CREATE TABLE analytics_latency_blocks (
    days         INTEGER NOT NULL,
    first_day    DATE NOT NULL,
    is_all       BOOLEAN NOT NULL,
    project_id   TEXT NOT NULL,
    layer        TEXT NOT NULL,
    model        TEXT NOT NULL,
    request_type TEXT NOT NULL,
    measure      TEXT NOT NULL,
    buckets      SMALLINT[] NOT NULL,
    numbers      BIGINT[] NOT NULL,
    PRIMARY KEY (days, first_day, is_all, project_id, layer, model, request_type, measure)
);

-- Withdraw the blocks of some days. Whoever changes sums of days calls it, after the change: a block that is being made
-- meanwhile is waited for, and found.
CREATE FUNCTION sidegate_withdraw_blocks(touched DATE[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE analytics_blocks IN ROW EXCLUSIVE MODE;
    DELETE FROM analytics_blocks
    WHERE EXISTS (SELECT FROM unnest(touched) AS day WHERE day >= first_day AND day < first_day + days);
END $$;

-- What reads a range of days: blocks, the largest first that fit, and runs of days that are in none (days = 1).
CREATE FUNCTION sidegate_blocks(since DATE, until DATE)
RETURNS TABLE (days INTEGER, first_day DATE, past_day DATE) LANGUAGE plpgsql STABLE ROWS 10 AS $$
DECLARE
    at DATE := since;
    size INTEGER;
BEGIN
    first_day := since;
    WHILE at < until LOOP
        SELECT max(b.days) INTO size FROM analytics_blocks b
        WHERE b.days IN (2, 4, 8, 16, 32, 64) AND b.first_day = at AND b.days <= until - at;
        IF size IS NULL THEN
            SELECT min(b.first_day) INTO past_day FROM analytics_blocks b WHERE b.days = 2 AND b.first_day > at;
            at := least(past_day, until);
            CONTINUE;
        END IF;
        IF first_day < at THEN
            days := 1;
            past_day := at;
            RETURN NEXT;
        END IF;
        days := size;
        first_day := at;
        past_day := at + size;
        RETURN NEXT;
        at := past_day;
        first_day := at;
    END LOOP;
    IF first_day < until THEN
        days := 1;
        past_day := until;
        RETURN NEXT;
    END IF;
END $$;

-- What stands in a block, from its two days or from its two halves.
CREATE FUNCTION sidegate_user_block(size INTEGER, first DATE) RETURNS SETOF analytics_user_blocks
LANGUAGE sql STABLE AS $$
    SELECT size, first, project_id, user_id, request_type, sum(requests)::bigint, sum(calls)::bigint, sum(errors)::bigint,
        sum(rejected)::bigint, sum(aborted)::bigint, sum(cache_hits)::bigint, sum(input_tokens)::bigint,
        sum(cached_input_tokens)::bigint, sum(output_tokens)::bigint, sum(cost_nanos)::bigint, sum(timed)::bigint,
        sum(duration_us)::bigint
    FROM (
        SELECT project_id, user_id, request_type, requests, calls, errors, rejected, aborted, cache_hits, input_tokens,
            cached_input_tokens, output_tokens, cost_nanos, timed, duration_us
        FROM analytics_usage WHERE size = 2 AND kind = 'u' AND day >= first AND day < first + 2
        UNION ALL
        SELECT project_id, user_id, request_type, requests, calls, errors, rejected, aborted, cache_hits, input_tokens,
            cached_input_tokens, output_tokens, cost_nanos, timed, duration_us
        FROM analytics_user_blocks
        WHERE size > 2 AND days = size / 2 AND first_day IN (first, first + size / 2)
    ) AS part
    GROUP BY project_id, user_id, request_type HAVING sum(requests) <> 0 OR sum(calls) <> 0
$$;

CREATE FUNCTION sidegate_latency_block(size INTEGER, first DATE) RETURNS SETOF analytics_latency_blocks
LANGUAGE sql STABLE AS $$
    SELECT size, first, is_all, project_id, layer, model, request_type, measure, array_agg(bucket ORDER BY bucket),
        array_agg(number ORDER BY bucket)
    FROM (
        SELECT grouping(project_id) = 1 AS is_all, coalesce(project_id, '') AS project_id, layer, model, request_type,
            measure, bucket, sum(number)::bigint AS number
        FROM (
            SELECT project_id, layer, model, request_type, measure, bucket, number FROM analytics_latency
            WHERE size = 2 AND day >= first AND day < first + 2
            UNION ALL
            SELECT project_id, layer, model, request_type, measure, cell.bucket, cell.number
            FROM analytics_latency_blocks CROSS JOIN LATERAL unnest(buckets, numbers) AS cell(bucket, number)
            WHERE size > 2 AND days = size / 2 AND first_day IN (first, first + size / 2) AND NOT is_all
        ) AS part
        GROUP BY layer, model, request_type, measure, bucket, GROUPING SETS ((project_id), ()) HAVING sum(number) <> 0
    ) AS cell
    GROUP BY is_all, project_id, layer, model, request_type, measure
$$;

-- A block that is to be made, the smallest first: its halves are there then. The last two days are left alone: they last
-- until noon of the next one somewhere, and traces come late. Sums older than three years are read by days.
CREATE FUNCTION sidegate_due_block(today DATE, OUT days INTEGER, OUT first_day DATE) LANGUAGE sql STABLE AS $$
    WITH known AS (
        SELECT oldest - (oldest - '1970-01-01'::date) % 64 AS oldest
        FROM (
            SELECT least(greatest(min(day), today - 1100), today) AS oldest FROM analytics_days
            WHERE kind = 'a' AND project_id = ''
        ) AS d
    )
    SELECT size, first FROM known CROSS JOIN unnest(ARRAY[2, 4, 8, 16, 32, 64]) AS size
    CROSS JOIN LATERAL (
        SELECT oldest + n AS first FROM generate_series(0, today - 1 - size - oldest, size) AS n
    ) AS begins
    WHERE NOT EXISTS (SELECT FROM analytics_blocks b WHERE b.days = size AND b.first_day = first)
    ORDER BY size, first DESC LIMIT 1
$$;

-- Make one block; return whether there was one to make. Writers wait meanwhile, for some tenths of a second.
CREATE FUNCTION sidegate_make_block(today DATE DEFAULT (now() AT TIME ZONE 'UTC')::date)
RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '5s' AS $$
DECLARE
    due RECORD;
BEGIN
    IF (SELECT days FROM sidegate_due_block(today)) IS NULL OR NOT pg_try_advisory_xact_lock(x'51DEB10C'::integer) THEN
        RETURN false;
    END IF;
    LOCK TABLE analytics_blocks IN SHARE ROW EXCLUSIVE MODE;
    SELECT * INTO due FROM sidegate_due_block(today); -- now that nobody can withdraw its halves
    IF due.days IS NULL THEN
        RETURN false;
    END IF;
    DELETE FROM analytics_user_blocks WHERE days = due.days AND first_day = due.first_day;
    DELETE FROM analytics_latency_blocks WHERE days = due.days AND first_day = due.first_day;
    INSERT INTO analytics_user_blocks SELECT * FROM sidegate_user_block(due.days, due.first_day);
    INSERT INTO analytics_latency_blocks SELECT * FROM sidegate_latency_block(due.days, due.first_day);
    INSERT INTO analytics_blocks VALUES (due.days, due.first_day);
    RETURN true;
END $$;

-- The functions of 003, 008 and 012 without weeks. The former ones are kept for the way back.
DO $$
DECLARE
    one TEXT;
    made TEXT;
    former TEXT;
    changed TEXT;
    touched TEXT;
    trigger RECORD;
    has_trigger BOOLEAN;
BEGIN
    FOREACH one IN ARRAY ARRAY['sidegate_usage_sums_on_insert', 'sidegate_usage_sums_on_update',
        'sidegate_usage_sums_on_delete', 'sidegate_latency_sums_on_insert', 'sidegate_latency_sums_on_update',
        'sidegate_latency_sums_on_delete', 'sidegate_count_traces', 'sidegate_usage_sums', 'sidegate_latency_sums']
    LOOP
        made := pg_get_functiondef(one::regproc);
        FOR former, changed IN SELECT * FROM (VALUES
            ($t$CASE WHEN grouping(week) = 0 THEN 'S' WHEN grouping(user_id) = 0$t$, 'CASE WHEN grouping(user_id) = 0'),
            ('project_id, coalesce(day, week) AS day, coalesce(user_id', 'project_id, day, coalesce(user_id'),
            (', (week, project_id, user_id, request_type))', ')'),
            ($t$kind AS fine, date_trunc('week', day)::date AS week, r.*$t$, 'kind AS fine, r.*'),
            ($t$(CASE WHEN grouping(project_id) = 0 THEN 'w' WHEN grouping(day) = 0 THEN 'D' ELSE 'W' END)::"char"$t$,
                $t$'D'::"char"$t$),
            ($t$coalesce(project_id, '') AS project_id, coalesce(day, week) AS day, layer$t$,
                $t$'' AS project_id, day, layer$t$),
            ('GROUPING SETS ((project_id, week), (day), (week))', 'day'),
            ($t$AS sign, date_trunc('week', day)::date AS week, r.*$t$, 'AS sign, r.*'),
            ($t$ UNION SELECT date_trunc('week', day)::date FROM gone$t$, ''),
            (' AND (grouping(week) = 0 OR day >= since AND day < until)', ''),
            ('analytics_sums', 'analytics_days'), ('analytics_latency_sums', 'analytics_latency_days'),
            ('sidegate_usage_sums(', 'sidegate_usage_days('), ('sidegate_latency_sums(', 'sidegate_latency_days(')
        ) AS pair LOOP
            made := replace(made, former, changed);
        END LOOP;
        made := regexp_replace(made, $t$day >= date_trunc\('week', since\)::date\s+AND day < date_trunc\('week', until \+ 6\)::date$t$,
            'day >= since AND day < until');
        IF made ~ 'week' OR made ~ '_sums AS a' THEN
            RAISE EXCEPTION '% is not what 008, 011 and 012 made', one;
        END IF;
        touched := CASE
            WHEN one ~ '_insert$' THEN 'SELECT day FROM fresh'
            WHEN one ~ '_update$' THEN 'SELECT day FROM fresh UNION SELECT day FROM gone'
            WHEN one ~ '_delete$' THEN 'SELECT day FROM gone'
            -- In whatever zone the days of traces are.
            ELSE $t$SELECT DISTINCT (created_at AT TIME ZONE 'UTC')::date + n FROM fresh CROSS JOIN generate_series(-1, 1) AS n$t$
        END;
        made := regexp_replace(made, 'RETURN NULL;', format('PERFORM sidegate_withdraw_blocks(ARRAY(%s)); RETURN NULL;', touched));
        SELECT tgname, tgrelid::regclass AS relation, pg_get_triggerdef(oid) AS definition INTO trigger FROM pg_trigger
        WHERE tgfoid = one::regproc;
        has_trigger := FOUND;
        IF has_trigger THEN
            EXECUTE format('DROP TRIGGER %I ON %s', trigger.tgname, trigger.relation);
            EXECUTE format('ALTER FUNCTION %I() RENAME TO %I', one, one || '_until_013');
        END IF;
        EXECUTE made;
        IF has_trigger THEN
            EXECUTE trigger.definition;
        END IF;
    END LOOP;
END $$;

-- The tables of before, weeks included: for replicas of the version before, which read them, and for SQL of operators.
DO $$
DECLARE
    figures TEXT := (
        SELECT string_agg(format('sum(%1$I)::bigint AS %1$I', attname), ', ' ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = 'analytics_days'::regclass AND attnum > 9 AND NOT attisdropped
    );
BEGIN
    EXECUTE $sql$
        CREATE VIEW analytics_sums AS SELECT * FROM analytics_days
        UNION ALL
        SELECT 'S'::"char", project_id, date_trunc('week', day)::date, user_id, '-infinity'::timestamptz, '', '',
            request_type, shard, $sql$ || figures || $sql$
        FROM analytics_days WHERE kind = 's'
        GROUP BY project_id, date_trunc('week', day), user_id, request_type, shard $sql$;
END $$;

CREATE VIEW analytics_latency_sums AS
    SELECT * FROM analytics_latency_days
    UNION ALL
    SELECT 'w'::"char", project_id, date_trunc('week', day)::date, layer, model, request_type, measure, bucket, shard,
        sum(number)::bigint
    FROM analytics_latency
    GROUP BY project_id, date_trunc('week', day), layer, model, request_type, measure, bucket, shard
    UNION ALL
    SELECT 'W'::"char", '', date_trunc('week', day)::date, layer, model, request_type, measure, bucket, shard,
        sum(number)::bigint
    FROM analytics_latency_days
    GROUP BY date_trunc('week', day), layer, model, request_type, measure, bucket, shard;
