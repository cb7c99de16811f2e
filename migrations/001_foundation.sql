-- The whole foundation: tenants, quotas, roles, conversations and traces. Undone by 001_foundation_rollback.sql.
-- Runs in one transaction. Every name is created in the first schema of the search path.

-- What this migration added to objects that may belong to someone else; the rollback removes exactly that.
CREATE TABLE sidegate_additions (
    object TEXT PRIMARY KEY
);

-- ---------------------------------------------------------------------------------------------------------- tenants

CREATE FUNCTION sidegate_touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;

-- STABLE, not IMMUTABLE: zones come from a database that is updated with the operating system.
CREATE FUNCTION sidegate_is_time_zone(zone TEXT) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM now() AT TIME ZONE zone;
    RETURN zone IS NOT NULL;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN false;
END $$;

CREATE TABLE organizations (
    id         TEXT PRIMARY KEY CHECK (id <> ''),
    name       TEXT NOT NULL,
    metadata   JSONB NOT NULL DEFAULT '{}',
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE projects (
    id              TEXT PRIMARY KEY CHECK (id <> ''),
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    name            TEXT NOT NULL,
    config          JSONB NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(config) = 'object'),
    created_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT projects_time_zone_check CHECK (sidegate_is_time_zone(coalesce(config ->> 'timeZone', 'UTC')))
);
CREATE INDEX projects_organization_id_idx ON projects (organization_id);

CREATE TRIGGER organizations_touch BEFORE UPDATE ON organizations FOR EACH ROW EXECUTE FUNCTION sidegate_touch();
CREATE TRIGGER projects_touch BEFORE UPDATE ON projects FOR EACH ROW EXECUTE FUNCTION sidegate_touch();

INSERT INTO organizations (id, name) VALUES ('default-org', 'Default organization');
INSERT INTO projects (id, organization_id, name) VALUES ('default-project', 'default-org', 'Default project');

CREATE TABLE user_roles (
    user_id    TEXT NOT NULL CHECK (user_id <> ''),
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    role       TEXT NOT NULL CHECK (role IN ('viewer', 'developer', 'admin', 'owner')),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, project_id)
);
CREATE INDEX user_roles_project_id_idx ON user_roles (project_id);

-- ----------------------------------------------------------------------------------------------------------- quotas

-- The first moment of the next calendar day in the project's time zone. Where a clock change removes or repeats
-- midnight the result is still later than `at`. A zone that the server no longer knows counts as UTC.
CREATE FUNCTION sidegate_next_reset(project TEXT, at TIMESTAMPTZ) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
DECLARE
    zone TEXT := coalesce((SELECT config ->> 'timeZone' FROM projects WHERE id = project), 'UTC');
BEGIN
    IF NOT sidegate_is_time_zone(zone) THEN
        zone := 'UTC';
    END IF;
    RETURN (date_trunc('day', at AT TIME ZONE zone) + interval '1 day') AT TIME ZONE zone;
END $$;

-- NaN compares greater than every number, so `>= 0` alone would let it in.
CREATE TABLE user_quotas (
    user_id              TEXT NOT NULL CHECK (user_id <> ''),
    project_id           TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    max_tokens_daily     BIGINT NOT NULL DEFAULT 1000000 CHECK (max_tokens_daily >= 0),
    max_cost_daily       NUMERIC(20, 9) NOT NULL DEFAULT 10.0 CHECK (max_cost_daily >= 0 AND max_cost_daily <> 'NaN'),
    current_tokens_today BIGINT NOT NULL DEFAULT 0 CHECK (current_tokens_today >= 0),
    current_cost_today   NUMERIC(20, 9) NOT NULL DEFAULT 0
                         CHECK (current_cost_today >= 0 AND current_cost_today <> 'NaN'),
    reset_at             TIMESTAMPTZ NOT NULL,
    created_at           TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at           TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, project_id)
);
CREATE INDEX user_quotas_project_id_idx ON user_quotas (project_id);
CREATE INDEX user_quotas_reset_at_idx ON user_quotas (reset_at);

-- A row written after its window ended starts the new window at zero, whatever the statement says about the counters:
-- a value computed from the old window cannot be told from an absolute one.
CREATE FUNCTION auto_reset_quota_check() RETURNS trigger LANGUAGE plpgsql AS $$
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

CREATE TRIGGER auto_reset_quota_check BEFORE INSERT OR UPDATE ON user_quotas
    FOR EACH ROW EXECUTE FUNCTION auto_reset_quota_check();

-- For operators: start a new window for everyone now. Returns the number of quotas.
CREATE FUNCTION reset_all_quotas() RETURNS integer LANGUAGE plpgsql AS $$
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

-- ---------------------------------------------------------------------------------------------------- conversations

-- The table may belong to the application already: then we add one column and nothing else. A project_id column that is
-- there is its owner's: its empty values are filled where its own constraints allow it, and it gets no foreign key.
DO $$
DECLARE
    found REGCLASS := to_regclass('conversations');
BEGIN
    IF found IS NULL THEN
        CREATE TABLE conversations (
            id         TEXT PRIMARY KEY,
            project_id TEXT REFERENCES projects (id) ON DELETE SET NULL,
            user_id    TEXT,
            created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
            updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
        );
        CREATE INDEX conversations_project_id_idx ON conversations (project_id);
        INSERT INTO sidegate_additions VALUES ('conversations');
    ELSIF (SELECT relkind NOT IN ('r', 'p') FROM pg_class WHERE oid = found) THEN
        RAISE EXCEPTION 'conversations exists but is not a table'
            USING HINT = 'Rename it, or give Sidegate a schema of its own through the search_path of its role.';
    ELSIF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = found AND attname = 'project_id' AND NOT attisdropped) THEN
        -- A constant default fills the old rows without writing them, and fires none of the owner's triggers.
        ALTER TABLE conversations ADD COLUMN project_id TEXT DEFAULT 'default-project'
            CONSTRAINT conversations_project_id_sidegate_fkey REFERENCES projects (id) ON DELETE SET NULL;
        ALTER TABLE conversations ALTER COLUMN project_id DROP DEFAULT;
        CREATE INDEX conversations_project_id_sidegate_idx ON conversations (project_id);
        INSERT INTO sidegate_additions VALUES ('conversations.project_id');
    ELSE
        BEGIN
            UPDATE conversations SET project_id = 'default-project' WHERE project_id IS NULL;
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE 'conversations.project_id is left as it is: %', SQLERRM;
        END;
    END IF;
END $$;

-- ----------------------------------------------------------------------------------------------------------- traces

-- created_at is the start of the request: the same milliseconds as in the id (UUIDv7), so a lookup by id needs one
-- partition only and a replay hits the same key.
-- project_id and user_id have no foreign key: a trace must never be refused because a tenant is missing.
-- conversation_id is added below, in the type of conversations.id.
CREATE TABLE request_traces (
    id                  UUID NOT NULL,
    created_at          TIMESTAMPTZ NOT NULL,
    conversation_ref    TEXT,
    request_type        TEXT,
    operation           TEXT,
    method              TEXT,
    path                TEXT,
    user_id             TEXT,
    project_id          TEXT,
    model               TEXT,
    response_model      TEXT,
    upstream            TEXT,
    stream              BOOLEAN,
    status              INTEGER,
    outcome             TEXT,
    input_tokens        BIGINT,
    cached_input_tokens BIGINT,
    output_tokens       BIGINT,
    reasoning_tokens    BIGINT,
    usage_source        TEXT,
    total_cost          NUMERIC(20, 9),
    total_duration_ms   DOUBLE PRECISION,
    first_byte_ms       DOUBLE PRECISION,
    upstream_ms         DOUBLE PRECISION,
    overhead_ms         DOUBLE PRECISION,
    request_bytes       BIGINT,
    response_bytes      BIGINT,
    upstream_request_id TEXT,
    routing_decisions   JSONB NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(routing_decisions) = 'array'),
    llm_calls           JSONB NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(llm_calls) = 'array'),
    tool_calls          JSONB NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(tool_calls) = 'array'),
    error_info          JSONB,
    phases              JSONB,
    client              JSONB,
    recorded_at         TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (created_at, id)
) PARTITION BY RANGE (created_at);

COMMENT ON COLUMN request_traces.created_at IS 'Start of the request; equals the milliseconds of the UUIDv7 in id';
COMMENT ON COLUMN request_traces.conversation_ref IS 'The client''s own reference, as it was sent';
COMMENT ON COLUMN request_traces.model IS 'Model asked for; response_model is what the provider says it used';
COMMENT ON COLUMN request_traces.status IS 'HTTP status sent to the client; NULL if none was sent';
COMMENT ON COLUMN request_traces.total_cost IS 'Dollars';
COMMENT ON COLUMN request_traces.overhead_ms IS 'total_duration_ms minus the time spent waiting for upstreams';
COMMENT ON COLUMN request_traces.recorded_at IS 'When the row reached this database';

DO $$
DECLARE
    id_type TEXT := (
        SELECT format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = 'conversations'::regclass AND attname = 'id' AND NOT attisdropped
    );
    is_key BOOLEAN := EXISTS (
        SELECT FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attname = 'id' AND attnum = indkey[0]
        WHERE indrelid = 'conversations'::regclass
          AND indisunique AND indisvalid AND indimmediate AND indnkeyatts = 1 AND indpred IS NULL
    );
BEGIN
    EXECUTE format('ALTER TABLE request_traces ADD COLUMN conversation_id %s', coalesce(id_type, 'TEXT'));
    IF is_key THEN
        ALTER TABLE request_traces ADD CONSTRAINT request_traces_conversation_id_fkey
            FOREIGN KEY (conversation_id) REFERENCES conversations (id) ON DELETE SET NULL;
    ELSE
        RAISE NOTICE 'conversations.id is not unique: request_traces.conversation_id gets no foreign key';
    END IF;
END $$;

CREATE INDEX request_traces_conversation_id_idx ON request_traces (conversation_id);
CREATE INDEX request_traces_conversation_ref_idx ON request_traces (conversation_ref, created_at DESC)
    WHERE conversation_ref IS NOT NULL;
CREATE INDEX request_traces_request_type_idx ON request_traces (request_type);
CREATE INDEX request_traces_created_at_idx ON request_traces (created_at);
CREATE INDEX request_traces_total_cost_idx ON request_traces (total_cost DESC);
CREATE INDEX request_traces_project_id_idx ON request_traces (project_id, created_at DESC);
CREATE INDEX request_traces_user_id_idx ON request_traces (user_id, created_at DESC);
CREATE INDEX request_traces_model_idx ON request_traces (model, created_at DESC);
CREATE INDEX request_traces_outcome_idx ON request_traces (outcome, created_at DESC) WHERE outcome <> 'ok';

-- Prompts and answers, only where content capture is on. A table of its own: it can be emptied, or kept from a role,
-- without touching the accounts.
CREATE TABLE trace_contents (
    trace_id   UUID NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    request    BYTEA,
    response   BYTEA,
    truncated  BOOLEAN NOT NULL DEFAULT false,
    mode       TEXT NOT NULL CHECK (mode IN ('redacted', 'full')),
    PRIMARY KEY (created_at, trace_id)
) PARTITION BY RANGE (created_at);

CREATE TABLE request_traces_default PARTITION OF request_traces DEFAULT;
CREATE TABLE trace_contents_default PARTITION OF trace_contents DEFAULT;

-- Records that PostgreSQL refused, in the journal's own format, so that nothing is lost silently.
CREATE TABLE trace_dead_letters (
    id          BIGSERIAL PRIMARY KEY,
    received_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    trace_id    UUID,
    reason      TEXT NOT NULL,
    record      BYTEA NOT NULL
);
CREATE INDEX trace_dead_letters_received_at_idx ON trace_dead_letters (received_at);

-- ------------------------------------------------------------------------------- from a client's reference to a row

-- sidegate_conversation(ref, project, user_id, seen): return the conversations.id of a client's own reference, or NULL.
-- The row is locked against deletion until the end of the transaction, so the trace that follows finds it.
--   Our own table: the reference is the id; if another project has that id, "<project>/<reference>". Made when missing.
--   A table of the application: the reference must be an id in its type. Missing rows are made where the table allows
--   it: never where its ids come from a sequence (we would take numbers that it will hand out later), and not where
--   other columns are required.
-- Data that does not fit gives NULL. Failures that pass (deadlock, shutdown, out of memory) are raised: the whole batch is
-- tried again then.
DO $$
DECLARE
    id_type TEXT := (
        SELECT format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = 'conversations'::regclass AND attname = 'id' AND NOT attisdropped
    );
    numbers_itself BOOLEAN := EXISTS (
        SELECT FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attrelid = 'conversations'::regclass AND attname = 'id'
          AND (attidentity <> '' OR pg_get_expr(adbin, adrelid) LIKE 'nextval(%')
    );
    header CONSTANT TEXT := $text$
        CREATE FUNCTION sidegate_conversation(ref TEXT, project TEXT, user_id TEXT, seen TIMESTAMPTZ)
        RETURNS %s LANGUAGE plpgsql AS $body$
        #variable_conflict use_variable
        DECLARE
            key   %1$s;
            found %1$s;
            owner TEXT;
        BEGIN
            IF coalesce(ref, '') = '' THEN
                RETURN NULL;
            END IF;
            %s
        EXCEPTION
            WHEN transaction_rollback OR insufficient_resources OR operator_intervention OR system_error THEN
                RAISE;
            WHEN OTHERS THEN
                RETURN NULL;
        END $body$ $text$;
    own CONSTANT TEXT := $text$
            SELECT p.id INTO owner FROM projects p WHERE p.id = project;
            FOREACH key IN ARRAY ARRAY[ref, project || '/' || ref] LOOP
                INSERT INTO conversations AS c (id, project_id, user_id, created_at, updated_at)
                    VALUES (key, owner, user_id, seen, seen) ON CONFLICT (id) DO NOTHING;
                SELECT c.id INTO found FROM conversations c
                    WHERE c.id = key AND c.project_id IS NOT DISTINCT FROM owner FOR KEY SHARE;
                -- Not at every call: batches of several writers would wait for each other.
                UPDATE conversations c SET updated_at = seen
                    WHERE c.id = found AND c.updated_at < seen - interval '1 minute';
                EXIT WHEN found IS NOT NULL;
            END LOOP;
            RETURN found;$text$;
    look CONSTANT TEXT := $text$
            key := ref;
            SELECT c.id INTO found FROM conversations c WHERE c.id = key LIMIT 1 FOR KEY SHARE;
            RETURN found;$text$;
    look_or_make CONSTANT TEXT := $text$
            key := ref;
            SELECT c.id INTO found FROM conversations c WHERE c.id = key LIMIT 1 FOR KEY SHARE;
            IF found IS NULL THEN
                SELECT p.id INTO owner FROM projects p WHERE p.id = project;
                INSERT INTO conversations AS c (id, project_id) VALUES (key, owner) ON CONFLICT DO NOTHING;
                SELECT c.id INTO found FROM conversations c WHERE c.id = key LIMIT 1 FOR KEY SHARE;
            END IF;
            RETURN found;$text$;
BEGIN
    EXECUTE format(header, coalesce(id_type, 'TEXT'), CASE
        WHEN EXISTS (SELECT FROM sidegate_additions WHERE object = 'conversations') THEN own
        WHEN id_type IS NULL THEN 'RETURN NULL;'
        WHEN numbers_itself THEN look
        ELSE look_or_make
    END);
END $$;

-- ------------------------------------------------------------------------------------------------------- partitions

-- Make the partitions of today and the given number of days after it (UTC days). Safe to call at any time and from any
-- number of processes: only missing partitions take locks, and then for at most five seconds of waiting.
-- Rows that arrived early, in the default partition, move to the new one.
CREATE FUNCTION sidegate_ensure_partitions(days_ahead INTEGER) RETURNS integer LANGUAGE plpgsql
SET lock_timeout = '5s' AS $$
DECLARE
    today CONSTANT DATE := (now() AT TIME ZONE 'UTC')::date;
    parent TEXT;
    part   TEXT;
    lower  TIMESTAMPTZ;
    upper  TIMESTAMPTZ;
    made   INTEGER := 0;
BEGIN
    FOREACH parent IN ARRAY ARRAY['request_traces', 'trace_contents'] LOOP
        FOR day IN 0 .. days_ahead LOOP
            part := parent || to_char(today + day, '"_p"YYYYMMDD');
            CONTINUE WHEN to_regclass(part) IS NOT NULL;
            PERFORM pg_advisory_xact_lock(hashtext('sidegate partitions'), hashtext(current_schema()));
            -- Made by the process that we waited for? Asked of the table itself: to_regclass may answer from a cache.
            CONTINUE WHEN EXISTS (SELECT FROM pg_class WHERE relname = part AND relnamespace = (
                SELECT relnamespace FROM pg_class WHERE oid = parent::regclass));
            lower := (today + day)::timestamp AT TIME ZONE 'UTC';
            upper := (today + day + 1)::timestamp AT TIME ZONE 'UTC';
            -- Writers wait here, before they choose a partition: one that had chosen the default partition for a row of
            -- this day would find the row refused. Readers go on, but for those of the default partition.
            EXECUTE format('LOCK TABLE ONLY %I IN SHARE ROW EXCLUSIVE MODE', parent);
            EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', parent || '_default');
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part, parent);
            EXECUTE format(
                'WITH early AS (DELETE FROM %I WHERE created_at >= $1 AND created_at < $2 RETURNING *) '
                'INSERT INTO %I SELECT * FROM early', parent || '_default', part) USING lower, upper;
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, part, lower, upper);
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;

-- Drop the partitions, and delete the other rows, that are older than the given number of days (UTC); 0 keeps all.
-- Returns the number of partitions dropped.
CREATE FUNCTION sidegate_drop_partitions(retention_days INTEGER) RETURNS integer LANGUAGE plpgsql
SET lock_timeout = '5s' AS $$
DECLARE
    first_kept DATE;
    cutoff     TIMESTAMPTZ;
    parent     TEXT;
    part       NAME;
    dropped    INTEGER := 0;
BEGIN
    IF coalesce(retention_days, 0) <= 0 THEN
        RETURN 0;
    END IF;
    first_kept := (now() AT TIME ZONE 'UTC')::date - retention_days;
    cutoff := first_kept::timestamp AT TIME ZONE 'UTC';
    PERFORM pg_advisory_xact_lock(hashtext('sidegate partitions'), hashtext(current_schema()));
    FOREACH parent IN ARRAY ARRAY['request_traces', 'trace_contents'] LOOP
        FOR part IN
            SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
            WHERE inhparent = parent::regclass
              AND c.relname ~ ('^' || parent || '_p[0-9]{8}$')
              AND right(c.relname, 8) < to_char(first_kept, 'YYYYMMDD')
            ORDER BY c.relname
        LOOP
            EXECUTE format('DROP TABLE %I', part);
            dropped := dropped + 1;
        END LOOP;
        EXECUTE format('DELETE FROM %I WHERE created_at < $1', parent || '_default') USING cutoff;
    END LOOP;
    DELETE FROM trace_dead_letters WHERE received_at < cutoff;
    RETURN dropped;
END $$;

SELECT sidegate_ensure_partitions(7);
