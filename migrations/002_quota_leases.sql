-- Leases: every unit that can be spent is first taken from the quota, so no sum of spending can pass a limit. Undone by
-- 002_quota_leases_rollback.sql.
--
--     limit = available + settled (current_*_today) + held (rests of open leases) + burned (rests of expired leases)
--
-- A lease that expires is burned, never given back blindly: its holder may still spend it. What was really spent comes
-- with the traces, in the same transaction. Functions lock quota rows in the order (user_id, project_id) before they
-- change anything. `at` is the time to act at, for tests; NULL is the clock, read after the lock was got.

ALTER TABLE user_quotas
    ADD COLUMN window_no         BIGINT NOT NULL DEFAULT 1,
    ADD COLUMN window_started_at TIMESTAMPTZ,
    ADD COLUMN held_tokens       BIGINT NOT NULL DEFAULT 0 CHECK (held_tokens >= 0),
    ADD COLUMN held_nanos        BIGINT NOT NULL DEFAULT 0 CHECK (held_nanos >= 0),
    ADD COLUMN burned_tokens     BIGINT NOT NULL DEFAULT 0 CHECK (burned_tokens >= 0),
    ADD COLUMN burned_nanos      BIGINT NOT NULL DEFAULT 0 CHECK (burned_nanos >= 0),
    ADD COLUMN starved_at        TIMESTAMPTZ;

COMMENT ON COLUMN user_quotas.window_no IS 'Counts the windows (days) of this quota; a request belongs to one for ever';
COMMENT ON COLUMN user_quotas.held_tokens IS 'Taken by leases and not spent yet; nanos are billionths of a dollar';
COMMENT ON COLUMN user_quotas.burned_tokens IS 'Taken by leases that were not renewed: counted as spent until their holder tells';
COMMENT ON COLUMN user_quotas.starved_at IS 'When a replica was last refused what others hold';

-- Windows that have ended. Late settlements still change them.
CREATE TABLE quota_windows (
    user_id       TEXT NOT NULL,
    project_id    TEXT NOT NULL,
    window_no     BIGINT NOT NULL,
    started_at    TIMESTAMPTZ NOT NULL,
    ended_at      TIMESTAMPTZ NOT NULL,
    max_tokens    BIGINT NOT NULL,
    max_cost      NUMERIC(20, 9) NOT NULL,
    tokens        BIGINT NOT NULL,
    cost          NUMERIC(20, 9) NOT NULL,
    held_tokens   BIGINT NOT NULL,
    held_nanos    BIGINT NOT NULL,
    burned_tokens BIGINT NOT NULL,
    burned_nanos  BIGINT NOT NULL,
    PRIMARY KEY (user_id, project_id, window_no),
    FOREIGN KEY (user_id, project_id) REFERENCES user_quotas ON DELETE CASCADE
);

CREATE TABLE quota_leases (
    lease_id       UUID PRIMARY KEY,
    user_id        TEXT NOT NULL,
    project_id     TEXT NOT NULL,
    window_no      BIGINT NOT NULL,
    holder         TEXT NOT NULL,
    granted_tokens BIGINT NOT NULL CHECK (granted_tokens >= 0),
    granted_nanos  BIGINT NOT NULL CHECK (granted_nanos >= 0),
    spent_tokens   BIGINT NOT NULL DEFAULT 0 CHECK (spent_tokens >= 0),
    spent_nanos    BIGINT NOT NULL DEFAULT 0 CHECK (spent_nanos >= 0),
    state          TEXT NOT NULL CHECK (state IN ('open', 'expired', 'closed')),
    expires_at     TIMESTAMPTZ NOT NULL,
    created_at     TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at     TIMESTAMPTZ NOT NULL DEFAULT now(),
    FOREIGN KEY (user_id, project_id) REFERENCES user_quotas ON DELETE CASCADE
);
CREATE INDEX quota_leases_live_idx ON quota_leases (user_id, project_id) WHERE state <> 'closed';
CREATE INDEX quota_leases_updated_at_idx ON quota_leases (updated_at);

ALTER TABLE request_traces ADD COLUMN quota JSONB;
COMMENT ON COLUMN request_traces.quota IS 'Which leases bear the charge: {"window", "leases": [[id, tokens, nanos]]}';

-- ---------------------------------------------------------------------------------------------------------- windows

-- The start of the calendar day in the project's time zone that contains `at`.
CREATE FUNCTION sidegate_day_start(project TEXT, at TIMESTAMPTZ) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
DECLARE
    zone TEXT := coalesce((SELECT config ->> 'timeZone' FROM projects WHERE id = project), 'UTC');
BEGIN
    IF NOT sidegate_is_time_zone(zone) THEN
        zone := 'UTC';
    END IF;
    RETURN date_trunc('day', at AT TIME ZONE zone) AT TIME ZONE zone;
END $$;

UPDATE user_quotas SET window_started_at = sidegate_day_start(project_id, now());
ALTER TABLE user_quotas ALTER COLUMN window_started_at SET NOT NULL;

-- A row written after its window ended starts the next one at zero, whatever the statement says about the counters: a
-- value computed from the old window cannot be told from an absolute one. The old window goes to quota_windows.
CREATE OR REPLACE FUNCTION auto_reset_quota_check() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.reset_at <= now() THEN
            NEW.current_tokens_today := 0;
            NEW.current_cost_today := 0;
            NEW.reset_at := NULL;
        END IF;
        NEW.reset_at := coalesce(NEW.reset_at, sidegate_next_reset(NEW.project_id, now()));
        NEW.window_started_at := coalesce(NEW.window_started_at, sidegate_day_start(NEW.project_id, now()));
    ELSE
        NEW.reset_at := coalesce(NEW.reset_at, sidegate_next_reset(NEW.project_id, now()));
        IF NEW.window_no = OLD.window_no AND (OLD.reset_at <= now() OR NEW.reset_at <= now()) THEN
            NEW.window_no := OLD.window_no + 1;
            NEW.current_tokens_today := 0;
            NEW.current_cost_today := 0;
            NEW.held_tokens := 0;
            NEW.held_nanos := 0;
            NEW.burned_tokens := 0;
            NEW.burned_nanos := 0;
            NEW.starved_at := NULL;
            NEW.window_started_at := greatest(
                sidegate_day_start(NEW.project_id, now()), least(OLD.reset_at, now()), OLD.window_started_at);
            IF NEW.reset_at <= now() THEN
                NEW.reset_at := sidegate_next_reset(NEW.project_id, now());
            END IF;
        END IF;
        IF NEW.window_no <> OLD.window_no THEN
            INSERT INTO quota_windows
            VALUES (OLD.user_id, OLD.project_id, OLD.window_no, OLD.window_started_at,
                least(OLD.reset_at, NEW.window_started_at), OLD.max_tokens_daily, OLD.max_cost_daily,
                OLD.current_tokens_today, OLD.current_cost_today,
                OLD.held_tokens, OLD.held_nanos, OLD.burned_tokens, OLD.burned_nanos)
            ON CONFLICT DO NOTHING;
        END IF;
    END IF;
    NEW.updated_at := now();
    RETURN NEW;
END $$;

-- Start the next window of one quota as of `at`, whether the current one is over or not. The row is locked by the caller.
CREATE FUNCTION sidegate_start_window(target_user TEXT, target_project TEXT, at TIMESTAMPTZ) RETURNS void
LANGUAGE sql AS $$
    UPDATE user_quotas SET
        window_no = window_no + 1, current_tokens_today = 0, current_cost_today = 0,
        held_tokens = 0, held_nanos = 0, burned_tokens = 0, burned_nanos = 0, starved_at = NULL,
        window_started_at = CASE
            WHEN reset_at <= at THEN greatest(sidegate_day_start(target_project, at), reset_at) ELSE at END,
        reset_at = sidegate_next_reset(target_project, at)
    WHERE user_id = target_user AND project_id = target_project
$$;

-- For operators: start a new window for everyone now. Returns the number of quotas.
CREATE OR REPLACE FUNCTION reset_all_quotas() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    quota   RECORD;
    changed INTEGER := 0;
BEGIN
    FOR quota IN SELECT user_id, project_id FROM user_quotas ORDER BY user_id, project_id FOR UPDATE LOOP
        PERFORM sidegate_start_window(quota.user_id, quota.project_id, clock_timestamp());
        changed := changed + 1;
    END LOOP;
    RETURN changed;
END $$;

-- Make the quota of a caller seen for the first time; its project's own limits come before the defaults.
CREATE FUNCTION sidegate_make_quota(
    target_user TEXT, target_project TEXT, default_tokens BIGINT, default_cost NUMERIC, at TIMESTAMPTZ
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    moment TIMESTAMPTZ := coalesce(at, clock_timestamp());
    rules  JSONB;
BEGIN
    IF EXISTS (SELECT FROM user_quotas WHERE user_id = target_user AND project_id = target_project) THEN
        RETURN;
    END IF;
    INSERT INTO projects (id, organization_id, name) VALUES (target_project, 'default-org', target_project)
    ON CONFLICT DO NOTHING;
    SELECT config -> 'quota' INTO rules FROM projects WHERE id = target_project;
    INSERT INTO user_quotas (user_id, project_id, max_tokens_daily, max_cost_daily, window_started_at, reset_at)
    VALUES (
        target_user, target_project,
        CASE WHEN jsonb_typeof(rules -> 'maxTokensDaily') = 'number'
                  AND (rules ->> 'maxTokensDaily')::numeric BETWEEN 0 AND 1e15
             THEN trunc((rules ->> 'maxTokensDaily')::numeric)::bigint ELSE default_tokens END,
        CASE WHEN jsonb_typeof(rules -> 'maxCostDaily') = 'number'
                  AND (rules ->> 'maxCostDaily')::numeric BETWEEN 0 AND 1e9
             THEN (rules ->> 'maxCostDaily')::numeric ELSE default_cost END,
        sidegate_day_start(target_project, moment), sidegate_next_reset(target_project, moment))
    ON CONFLICT DO NOTHING;
END $$;

-- ----------------------------------------------------------------------------------------------------------- leases

-- Lock one quota and bring it up to date: the next window if the current one is over; expired leases burn.
-- Returns the row, or nothing if there is none.
CREATE FUNCTION sidegate_lock_quota(target_user TEXT, target_project TEXT, at TIMESTAMPTZ)
RETURNS SETOF user_quotas LANGUAGE plpgsql AS $$
DECLARE
    quota  user_quotas;
    moment TIMESTAMPTZ;
BEGIN
    SELECT * INTO quota FROM user_quotas WHERE user_id = target_user AND project_id = target_project FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    moment := coalesce(at, clock_timestamp());
    IF quota.reset_at <= moment THEN
        PERFORM sidegate_start_window(target_user, target_project, moment);
    END IF;
    IF EXISTS (SELECT FROM quota_leases WHERE user_id = target_user AND project_id = target_project
               AND state = 'open' AND expires_at <= moment) THEN
        WITH gone AS (
            UPDATE quota_leases SET state = 'expired', updated_at = moment
            WHERE user_id = target_user AND project_id = target_project AND state = 'open' AND expires_at <= moment
            RETURNING window_no, greatest(granted_tokens - spent_tokens, 0) AS tokens,
                greatest(granted_nanos - spent_nanos, 0) AS nanos
        ), lost AS (
            SELECT window_no, sum(tokens)::bigint AS tokens, sum(nanos)::bigint AS nanos FROM gone GROUP BY window_no
        ), earlier AS (
            UPDATE quota_windows w SET
                held_tokens = held_tokens - lost.tokens, burned_tokens = burned_tokens + lost.tokens,
                held_nanos = held_nanos - lost.nanos, burned_nanos = burned_nanos + lost.nanos
            FROM lost
            WHERE w.user_id = target_user AND w.project_id = target_project AND w.window_no = lost.window_no
        )
        UPDATE user_quotas q SET
            held_tokens = held_tokens - lost.tokens, burned_tokens = burned_tokens + lost.tokens,
            held_nanos = held_nanos - lost.nanos, burned_nanos = burned_nanos + lost.nanos
        FROM lost
        WHERE q.user_id = target_user AND q.project_id = target_project AND q.window_no = lost.window_no;
    END IF;
    RETURN QUERY SELECT * FROM user_quotas WHERE user_id = target_user AND project_id = target_project;
END $$;

CREATE FUNCTION sidegate_nanos(dollars NUMERIC) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT trunc(least(dollars, 9e9) * 1000000000)::bigint
$$;

-- How a quota stands for one holder. The row is locked and up to date.
CREATE FUNCTION sidegate_standing(target_user TEXT, target_project TEXT, asker TEXT, at TIMESTAMPTZ) RETURNS TABLE (
    window_no BIGINT, window_ms BIGINT, reset_at TIMESTAMPTZ, max_tokens BIGINT, max_nanos BIGINT,
    settled_tokens BIGINT, settled_nanos BIGINT, available_tokens BIGINT, available_nanos BIGINT,
    elsewhere_tokens BIGINT, elsewhere_nanos BIGINT, holders INTEGER, starved BOOLEAN, project_quota TEXT
) LANGUAGE sql AS $$
    SELECT q.window_no, (extract(epoch FROM q.reset_at - at) * 1000)::bigint, q.reset_at,
        q.max_tokens_daily, sidegate_nanos(q.max_cost_daily),
        q.current_tokens_today, sidegate_nanos(q.current_cost_today),
        q.max_tokens_daily - q.current_tokens_today - q.held_tokens - q.burned_tokens,
        sidegate_nanos(q.max_cost_daily) - sidegate_nanos(q.current_cost_today) - q.held_nanos - q.burned_nanos,
        l.tokens, l.nanos, l.holders, coalesce(q.starved_at > at - interval '10 seconds', false),
        (SELECT p.config ->> 'quota' FROM projects p WHERE p.id = target_project)
    FROM user_quotas q, LATERAL (
        SELECT coalesce(sum(greatest(granted_tokens - spent_tokens, 0)) FILTER (WHERE holder <> asker), 0)::bigint AS tokens,
            coalesce(sum(greatest(granted_nanos - spent_nanos, 0)) FILTER (WHERE holder <> asker), 0)::bigint AS nanos,
            count(DISTINCT holder)::integer AS holders
        FROM quota_leases x
        WHERE x.user_id = target_user AND x.project_id = target_project AND x.state = 'open' AND x.window_no = q.window_no
    ) AS l
    WHERE q.user_id = target_user AND q.project_id = target_project
$$;

-- Take a slice of what is left. All of `need` or nothing, at best `want`, but not more than a fair part beyond `need`.
-- The same lease_id gets the same answer again.
CREATE FUNCTION sidegate_acquire(
    target_user TEXT, target_project TEXT, new_lease UUID, asker TEXT, need_tokens BIGINT, need_nanos BIGINT,
    want_tokens BIGINT, want_nanos BIGINT, ttl INTERVAL, default_tokens BIGINT, default_cost NUMERIC,
    at TIMESTAMPTZ DEFAULT NULL
) RETURNS TABLE (
    granted_tokens BIGINT, granted_nanos BIGINT, ttl_ms BIGINT, window_no BIGINT, window_ms BIGINT,
    reset_at TIMESTAMPTZ, max_tokens BIGINT, max_nanos BIGINT, settled_tokens BIGINT, settled_nanos BIGINT,
    available_tokens BIGINT, available_nanos BIGINT, elsewhere_tokens BIGINT, elsewhere_nanos BIGINT,
    holders INTEGER, starved BOOLEAN, project_quota TEXT
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    s      RECORD;
    known  quota_leases;
    others INTEGER;
    tokens BIGINT := 0;
    nanos  BIGINT := 0;
    moment TIMESTAMPTZ;
    until  TIMESTAMPTZ;
BEGIN
    PERFORM sidegate_make_quota(target_user, target_project, default_tokens, default_cost, at);
    PERFORM FROM user_quotas q WHERE q.user_id = target_user AND q.project_id = target_project FOR UPDATE;
    moment := coalesce(at, clock_timestamp());
    PERFORM sidegate_lock_quota(target_user, target_project, moment);
    SELECT * INTO known FROM quota_leases l WHERE l.lease_id = new_lease;
    IF FOUND THEN
        -- One of a window that an operator ended is not given out again: the answer speaks of the current window.
        IF known.state = 'open' AND known.window_no = (
            SELECT q.window_no FROM user_quotas q WHERE q.user_id = target_user AND q.project_id = target_project
        ) THEN
            tokens := known.granted_tokens;
            nanos := known.granted_nanos;
        END IF;
        until := known.expires_at;
    ELSE
        SELECT * INTO s FROM sidegate_standing(target_user, target_project, asker, moment);
        until := least(moment + ttl, s.reset_at);
        SELECT count(DISTINCT l.holder) INTO others FROM quota_leases l
        WHERE l.user_id = target_user AND l.project_id = target_project AND l.state = 'open'
          AND l.window_no = s.window_no AND l.holder <> asker;
        IF s.available_tokens >= need_tokens AND s.available_nanos >= need_nanos THEN
            tokens := greatest(least(s.available_tokens,
                greatest(need_tokens, least(want_tokens, s.available_tokens / (2 * (others + 1))))), 0);
            nanos := greatest(least(s.available_nanos,
                greatest(need_nanos, least(want_nanos, s.available_nanos / (2 * (others + 1))))), 0);
        ELSIF s.available_tokens + s.elsewhere_tokens >= need_tokens
              AND s.available_nanos + s.elsewhere_nanos >= need_nanos THEN
            UPDATE user_quotas q SET starved_at = moment WHERE q.user_id = target_user AND q.project_id = target_project;
        END IF;
        INSERT INTO quota_leases (lease_id, user_id, project_id, window_no, holder, granted_tokens, granted_nanos,
            state, expires_at, created_at, updated_at)
        VALUES (new_lease, target_user, target_project, s.window_no, asker, tokens, nanos,
            CASE WHEN tokens > 0 OR nanos > 0 THEN 'open' ELSE 'closed' END, until, moment, moment);
        IF tokens > 0 OR nanos > 0 THEN
            UPDATE user_quotas q SET held_tokens = q.held_tokens + tokens, held_nanos = q.held_nanos + nanos
            WHERE q.user_id = target_user AND q.project_id = target_project;
        END IF;
    END IF;
    RETURN QUERY
    SELECT tokens, nanos, (extract(epoch FROM until - moment) * 1000)::bigint, st.*
    FROM sidegate_standing(target_user, target_project, asker, moment) AS st;
END $$;

-- Keep leases alive: also one that has expired meanwhile, for its holder lives. Returns how their quotas stand.
CREATE FUNCTION sidegate_renew(lease_ids UUID[], ttl INTERVAL, at TIMESTAMPTZ DEFAULT NULL) RETURNS TABLE (
    user_id TEXT, project_id TEXT, window_no BIGINT, window_ms BIGINT, reset_at TIMESTAMPTZ, max_tokens BIGINT,
    max_nanos BIGINT, settled_tokens BIGINT, settled_nanos BIGINT, available_tokens BIGINT, available_nanos BIGINT,
    elsewhere_tokens BIGINT, elsewhere_nanos BIGINT, holders INTEGER, starved BOOLEAN, project_quota TEXT
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    quota  RECORD;
    back   RECORD;
    moment TIMESTAMPTZ;
BEGIN
    FOR quota IN
        SELECT DISTINCT l.user_id, l.project_id, min(l.holder) AS holder FROM quota_leases l
        WHERE l.lease_id = ANY (lease_ids) GROUP BY l.user_id, l.project_id ORDER BY l.user_id, l.project_id
    LOOP
        PERFORM FROM user_quotas q WHERE q.user_id = quota.user_id AND q.project_id = quota.project_id FOR UPDATE;
        moment := coalesce(at, clock_timestamp());
        -- Before expired leases burn: the given ones are alive.
        WITH renewed AS (
            UPDATE quota_leases l SET state = 'open', expires_at = least(moment + ttl, q.reset_at), updated_at = moment
            FROM user_quotas q, quota_leases old
            WHERE l.lease_id = ANY (lease_ids) AND l.user_id = quota.user_id AND l.project_id = quota.project_id
              AND q.user_id = l.user_id AND q.project_id = l.project_id AND q.window_no = l.window_no
              AND q.reset_at > moment AND l.state <> 'closed' AND old.lease_id = l.lease_id
            RETURNING old.state, greatest(l.granted_tokens - l.spent_tokens, 0) AS tokens,
                greatest(l.granted_nanos - l.spent_nanos, 0) AS nanos
        )
        SELECT coalesce(sum(tokens), 0)::bigint AS tokens, coalesce(sum(nanos), 0)::bigint AS nanos INTO back
        FROM renewed WHERE state = 'expired';
        IF back.tokens > 0 OR back.nanos > 0 THEN
            UPDATE user_quotas q SET
                held_tokens = q.held_tokens + back.tokens, burned_tokens = q.burned_tokens - back.tokens,
                held_nanos = q.held_nanos + back.nanos, burned_nanos = q.burned_nanos - back.nanos
            WHERE q.user_id = quota.user_id AND q.project_id = quota.project_id;
        END IF;
        PERFORM sidegate_lock_quota(quota.user_id, quota.project_id, moment);
        RETURN QUERY
        SELECT quota.user_id, quota.project_id, st.*
        FROM sidegate_standing(quota.user_id, quota.project_id, quota.holder, moment) AS st;
    END LOOP;
END $$;

-- ------------------------------------------------------------------------------------------------------- settlement

-- Book amounts on one window: settled grows, held or burned shrink. The quota row is locked.
CREATE FUNCTION sidegate_book(
    target_user TEXT, target_project TEXT, target_window BIGINT, settle_tokens BIGINT, settle_nanos NUMERIC,
    unhold_tokens BIGINT, unhold_nanos BIGINT, unburn_tokens BIGINT, unburn_nanos BIGINT
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE user_quotas SET
        current_tokens_today = current_tokens_today + settle_tokens,
        current_cost_today = current_cost_today + settle_nanos * 0.000000001,
        held_tokens = held_tokens - unhold_tokens, held_nanos = held_nanos - unhold_nanos,
        burned_tokens = burned_tokens - unburn_tokens, burned_nanos = burned_nanos - unburn_nanos
    WHERE user_id = target_user AND project_id = target_project AND window_no = target_window;
    IF NOT FOUND THEN
        UPDATE quota_windows SET
            tokens = tokens + settle_tokens, cost = cost + settle_nanos * 0.000000001,
            held_tokens = held_tokens - unhold_tokens, held_nanos = held_nanos - unhold_nanos,
            burned_tokens = burned_tokens - unburn_tokens, burned_nanos = burned_nanos - unburn_nanos
        WHERE user_id = target_user AND project_id = target_project AND window_no = target_window;
    END IF;
END $$;

-- The number of the window of a quota that contains `seen`; the current one where none does. The quota row is locked.
CREATE FUNCTION sidegate_window_at(target_user TEXT, target_project TEXT, seen TIMESTAMPTZ) RETURNS bigint
LANGUAGE sql AS $$
    SELECT coalesce(
        (SELECT w.window_no FROM quota_windows w
         WHERE w.user_id = target_user AND w.project_id = target_project
           AND w.started_at <= seen AND seen < w.ended_at AND seen < q.window_started_at
         ORDER BY w.window_no DESC LIMIT 1),
        q.window_no)
    FROM user_quotas q WHERE q.user_id = target_user AND q.project_id = target_project
$$;

-- Charge finished requests: `records` are those whose traces were inserted in this transaction for the first time.
-- over_*: spent beyond what the leases had been granted; unknown: shares of leases that do not exist.
CREATE FUNCTION sidegate_settle(
    records JSONB, default_tokens BIGINT, default_cost NUMERIC, at TIMESTAMPTZ DEFAULT NULL
) RETURNS TABLE (over_tokens BIGINT, over_nanos BIGINT, unknown INTEGER) LANGUAGE plpgsql AS $$
DECLARE
    moment TIMESTAMPTZ := coalesce(at, clock_timestamp());
    entry  RECORD;
    l      quota_leases;
    t      BIGINT;
    n      BIGINT;
BEGIN
    over_tokens := 0;
    over_nanos := 0;
    unknown := 0;
    FOR entry IN
        SELECT DISTINCT r ->> 'user_id' AS u, r ->> 'project_id' AS p FROM jsonb_array_elements(records) AS r
        WHERE jsonb_typeof(r -> 'quota') = 'object' AND r ->> 'user_id' <> '' AND r ->> 'project_id' <> ''
        ORDER BY 1, 2
    LOOP
        PERFORM sidegate_make_quota(entry.u, entry.p, default_tokens, default_cost, at);
        PERFORM sidegate_lock_quota(entry.u, entry.p, at);
    END LOOP;
    FOR entry IN
        SELECT r ->> 'user_id' AS u, r ->> 'project_id' AS p, (s ->> 0)::uuid AS lease,
            sum((s ->> 1)::bigint)::bigint AS tokens, sum((s ->> 2)::bigint)::bigint AS nanos,
            -- Where there is no lease, the time decides about the window, of each record for itself.
            CASE WHEN known.lease_id IS NULL THEN (r ->> 'created_at')::timestamptz END AS seen,
            (count(*) FILTER (WHERE (s ->> 1)::bigint > 0 OR (s ->> 2)::bigint > 0))::integer AS shares
        FROM jsonb_array_elements(records) AS r, jsonb_array_elements(r -> 'quota' -> 'leases') AS s
        LEFT JOIN quota_leases known ON known.lease_id = (s ->> 0)::uuid
        WHERE jsonb_typeof(r -> 'quota' -> 'leases') = 'array' AND r ->> 'user_id' <> '' AND r ->> 'project_id' <> ''
        GROUP BY 1, 2, 3, 6
        HAVING sum((s ->> 1)::bigint) > 0 OR sum((s ->> 2)::bigint) > 0
    LOOP
        SELECT * INTO l FROM quota_leases WHERE lease_id = entry.lease;
        IF NOT FOUND THEN
            unknown := unknown + entry.shares;
            PERFORM sidegate_book(entry.u, entry.p, sidegate_window_at(entry.u, entry.p, entry.seen),
                entry.tokens, entry.nanos, 0, 0, 0, 0);
            CONTINUE;
        END IF;
        UPDATE quota_leases SET
            spent_tokens = spent_tokens + entry.tokens, spent_nanos = spent_nanos + entry.nanos, updated_at = moment
        WHERE lease_id = entry.lease;
        -- By how much its rest shrinks.
        t := least(greatest(l.granted_tokens - l.spent_tokens, 0), entry.tokens);
        n := least(greatest(l.granted_nanos - l.spent_nanos, 0), entry.nanos);
        over_tokens := over_tokens + entry.tokens - t;
        over_nanos := over_nanos + entry.nanos - n;
        PERFORM sidegate_book(l.user_id, l.project_id, l.window_no, entry.tokens, entry.nanos,
            CASE l.state WHEN 'open' THEN t ELSE 0 END, CASE l.state WHEN 'open' THEN n ELSE 0 END,
            CASE l.state WHEN 'expired' THEN t ELSE 0 END, CASE l.state WHEN 'expired' THEN n ELSE 0 END);
    END LOOP;
    FOR entry IN
        SELECT r ->> 'user_id' AS u, r ->> 'project_id' AS p, (r ->> 'created_at')::timestamptz AS seen,
            coalesce((r ->> 'input_tokens')::bigint, 0) + coalesce((r ->> 'output_tokens')::bigint, 0) AS tokens,
            coalesce((r ->> 'total_cost')::numeric, 0) * 1000000000 AS nanos
        FROM jsonb_array_elements(records) AS r
        WHERE r -> 'quota' ->> 'unleased' IS NOT NULL AND r ->> 'user_id' <> '' AND r ->> 'project_id' <> ''
    LOOP
        PERFORM sidegate_book(entry.u, entry.p, sidegate_window_at(entry.u, entry.p, entry.seen),
            entry.tokens, entry.nanos, 0, 0, 0, 0);
    END LOOP;
    RETURN NEXT;
END $$;

-- Give back what running requests do not need (`keep_*`: what they may still spend); `ended`: nothing runs any more.
-- To be called after the charges that were recorded before. Repeating it changes nothing.
CREATE FUNCTION sidegate_release(records JSONB, at TIMESTAMPTZ DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    moment TIMESTAMPTZ := coalesce(at, clock_timestamp());
    entry  RECORD;
    quota  RECORD;
    l      quota_leases;
    t      BIGINT;
    n      BIGINT;
BEGIN
    FOR quota IN
        SELECT u, p FROM (
            SELECT r ->> 'user_id' AS u, r ->> 'project_id' AS p FROM jsonb_array_elements(records) AS r
            UNION
            SELECT x.user_id, x.project_id FROM jsonb_array_elements(records) AS r
            JOIN quota_leases x ON x.lease_id = (r ->> 'lease')::uuid
        ) AS concerned ORDER BY u, p
    LOOP
        PERFORM sidegate_lock_quota(quota.u, quota.p, at);
    END LOOP;
    FOR entry IN
        SELECT (r ->> 'lease')::uuid AS lease, r ->> 'user_id' AS u, r ->> 'project_id' AS p,
            coalesce((r ->> 'keep_tokens')::bigint, 0) AS keep_tokens,
            coalesce((r ->> 'keep_nanos')::bigint, 0) AS keep_nanos, coalesce((r ->> 'ended')::boolean, false) AS ended
        FROM jsonb_array_elements(records) WITH ORDINALITY AS x(r, position) ORDER BY position
    LOOP
        SELECT * INTO l FROM quota_leases WHERE lease_id = entry.lease;
        IF NOT FOUND THEN
            -- Its acquire may still be on the way: it must get nothing.
            IF entry.ended THEN
                INSERT INTO quota_leases (lease_id, user_id, project_id, window_no, holder, granted_tokens,
                    granted_nanos, state, expires_at, created_at, updated_at)
                SELECT entry.lease, q.user_id, q.project_id, q.window_no, '', 0, 0, 'closed', moment, moment, moment
                FROM user_quotas q WHERE q.user_id = entry.u AND q.project_id = entry.p;
            END IF;
            CONTINUE;
        END IF;
        IF l.state = 'closed' THEN
            CONTINUE;
        END IF;
        IF entry.ended THEN
            entry.keep_tokens := 0;
            entry.keep_nanos := 0;
        END IF;
        t := greatest(l.granted_tokens - l.spent_tokens - entry.keep_tokens, 0);
        n := greatest(l.granted_nanos - l.spent_nanos - entry.keep_nanos, 0);
        UPDATE quota_leases SET
            granted_tokens = granted_tokens - t, granted_nanos = granted_nanos - n,
            state = CASE WHEN entry.ended THEN 'closed' ELSE state END, updated_at = moment
        WHERE lease_id = entry.lease;
        PERFORM sidegate_book(l.user_id, l.project_id, l.window_no, 0, 0,
            CASE l.state WHEN 'open' THEN t ELSE 0 END, CASE l.state WHEN 'open' THEN n ELSE 0 END,
            CASE l.state WHEN 'expired' THEN t ELSE 0 END, CASE l.state WHEN 'expired' THEN n ELSE 0 END);
    END LOOP;
END $$;

-- -------------------------------------------------------------------------------------------------------- operators

-- Free what leases still burn whose holders are gone for good, journal and all: untouched for longer than `grace`.
-- Then set held and burned to what the leases say. Returns the number of leases freed.
CREATE FUNCTION sidegate_reconcile_quotas(grace INTERVAL, at TIMESTAMPTZ DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    quota   RECORD;
    moment  TIMESTAMPTZ;
    changed INTEGER;
    freed   INTEGER := 0;
BEGIN
    FOR quota IN SELECT user_id, project_id FROM user_quotas ORDER BY user_id, project_id LOOP
        moment := coalesce(at, clock_timestamp());
        PERFORM sidegate_lock_quota(quota.user_id, quota.project_id, moment);
        UPDATE quota_leases SET granted_tokens = least(granted_tokens, spent_tokens),
            granted_nanos = least(granted_nanos, spent_nanos), state = 'closed', updated_at = moment
        WHERE user_id = quota.user_id AND project_id = quota.project_id AND state = 'expired'
          AND updated_at < moment - grace AND window_no = (
              SELECT y.window_no FROM user_quotas y WHERE y.user_id = quota.user_id AND y.project_id = quota.project_id);
        GET DIAGNOSTICS changed = ROW_COUNT;
        freed := freed + changed;
        UPDATE user_quotas q SET
            held_tokens = sums.held_tokens, held_nanos = sums.held_nanos,
            burned_tokens = sums.burned_tokens, burned_nanos = sums.burned_nanos
        FROM (
            SELECT coalesce(sum(greatest(granted_tokens - spent_tokens, 0)) FILTER (WHERE state = 'open'), 0) AS held_tokens,
                coalesce(sum(greatest(granted_nanos - spent_nanos, 0)) FILTER (WHERE state = 'open'), 0) AS held_nanos,
                coalesce(sum(greatest(granted_tokens - spent_tokens, 0)) FILTER (WHERE state = 'expired'), 0) AS burned_tokens,
                coalesce(sum(greatest(granted_nanos - spent_nanos, 0)) FILTER (WHERE state = 'expired'), 0) AS burned_nanos
            FROM quota_leases x
            WHERE x.user_id = quota.user_id AND x.project_id = quota.project_id AND x.window_no =
                (SELECT y.window_no FROM user_quotas y WHERE y.user_id = quota.user_id AND y.project_id = quota.project_id)
        ) AS sums
        WHERE q.user_id = quota.user_id AND q.project_id = quota.project_id
          AND (q.held_tokens, q.held_nanos, q.burned_tokens, q.burned_nanos) IS DISTINCT FROM
              (sums.held_tokens, sums.held_nanos, sums.burned_tokens, sums.burned_nanos);
    END LOOP;
    RETURN freed;
END $$;

-- Delete closed leases that nothing can refer to any more.
CREATE FUNCTION sidegate_forget_leases(days INTEGER) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    gone INTEGER;
BEGIN
    DELETE FROM quota_leases WHERE state = 'closed' AND updated_at < now() - make_interval(days => days);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;
