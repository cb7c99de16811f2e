-- Which conversation a response belongs to, so that what continues it by `previous_response_id` joins that, whichever
-- replica served it, after restarts, and in whatever order the traces arrive. Undone by 014_response_chains_rollback.sql.
--
--     resp_3 -> resp_2 -> conv_1       a row leads to a name, or to another response of the same conversation
--     resp_5 -> resp_4 -> resp_4       resp_4 was continued, and no trace has said yet which conversation it belongs to
--
-- The end of the path is the conversation. Only a row that leads to itself ever changes, and it then leads to the end of
-- another path, so there are no circles. Responses that neither continue nor name anything have no row until one
-- continues them: the conversation is their own id.
CREATE TABLE response_chains (
    project_id   TEXT NOT NULL,
    response_id  TEXT NOT NULL,
    conversation TEXT NOT NULL,
    stored_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, response_id)
) WITH (fillfactor = 50); -- a row changes once, soon: on its own page, without new entries in the indexes
CREATE INDEX response_chains_stored_at_idx ON response_chains (stored_at);

COMMENT ON COLUMN response_chains.project_id IS 'Empty for traces without one; a project''s chains are its own';
COMMENT ON COLUMN response_chains.conversation IS 'A name, or a response of the same conversation; itself if unknown';

-- Return the end of a path. What leads to itself is locked until the end of the transaction: whoever learns of more waits
-- for us, and then sees the traces that we store under this end.
CREATE FUNCTION sidegate_chain_end(project TEXT, start TEXT) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    reached TEXT := start;
    further TEXT;
BEGIN
    FOR step IN 1 .. 1000 LOOP -- more only in a circle, which nobody can make who does not edit this table
        SELECT c.conversation INTO further FROM response_chains c
            WHERE c.project_id = project AND c.response_id = reached FOR SHARE;
        EXIT WHEN further IS NULL OR further = reached;
        reached := further;
    END LOOP;
    RETURN reached;
END $$;

-- Take up what traces say about chains, and return the conversation of every response that one of them continues.
-- `traces`: JSON objects with created_at, project_id, user_id, conversation_ref (used where nothing is continued),
-- previous_response_id, response_id. Idempotent. Traces stored earlier whose conversation is known only now are corrected.
CREATE FUNCTION sidegate_chains(traces JSONB) RETURNS TABLE (of_project TEXT, continued TEXT, belongs_to TEXT)
LANGUAGE plpgsql STRICT AS $$
DECLARE
    link RECORD;
    found_end TEXT;
BEGIN
    FOR link IN
        WITH trace AS MATERIALIZED (
            SELECT t.created_at, coalesce(t.project_id, '') AS project_id, t.user_id,
                coalesce(t.previous_response_id, t.conversation_ref) AS leads_to, t.previous_response_id, t.response_id
            FROM jsonb_to_recordset(traces) AS t(created_at TIMESTAMPTZ, project_id TEXT, user_id TEXT,
                conversation_ref TEXT, previous_response_id TEXT, response_id TEXT)
        ), made AS (
            -- In the order of their names, so that two writers cannot deadlock.
            INSERT INTO response_chains (project_id, response_id, conversation)
            SELECT DISTINCT trace.project_id, one.id, one.id
            FROM trace CROSS JOIN LATERAL (VALUES (previous_response_id), (response_id)) AS one(id)
            WHERE one.id IS NOT NULL ORDER BY 1, 2
            ON CONFLICT DO NOTHING
            RETURNING project_id, response_id
        )
        SELECT trace.*, made.response_id IS NULL AS is_known FROM trace LEFT JOIN made USING (project_id, response_id)
        WHERE trace.response_id IS NOT NULL
        -- First those that no stored trace leads to. The others move stored traces to an end that is known by then.
        ORDER BY is_known, trace.created_at
    LOOP
        found_end := sidegate_chain_end(link.project_id, link.leads_to);
        CONTINUE WHEN found_end = link.response_id;
        UPDATE response_chains c SET conversation = found_end
            WHERE c.project_id = link.project_id AND c.response_id = link.response_id AND c.conversation = c.response_id;
        IF FOUND AND link.is_known THEN
            -- Traces that continue it came first. Planned with these values, so only days since then are read; clocks of
            -- replicas may differ.
            EXECUTE 'UPDATE request_traces SET conversation_ref = $1,
                    conversation_id = (SELECT sidegate_conversation($1, nullif($2, ''''), $3, $4))
                WHERE conversation_ref = $5 AND coalesce(project_id, '''') = $2 AND created_at >= $4 - interval ''1 day'''
                USING found_end, link.project_id, link.user_id, link.created_at, link.response_id;
        END IF;
    END LOOP;
    RETURN QUERY SELECT p.project_id, p.id, sidegate_chain_end(p.project_id, p.id) FROM (
        SELECT DISTINCT coalesce(t.project_id, '') AS project_id, t.previous_response_id AS id
        FROM jsonb_to_recordset(traces) AS t(project_id TEXT, previous_response_id TEXT)
        WHERE t.previous_response_id IS NOT NULL ORDER BY 1, 2) AS p;
END $$;

-- Forget at most 10,000 responses whose traces are older than the given number of days (0 keeps all); return how many.
CREATE FUNCTION sidegate_drop_chains(retention_days INTEGER) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    dropped INTEGER := 0;
BEGIN
    IF coalesce(retention_days, 0) > 0 THEN
        DELETE FROM response_chains WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM response_chains WHERE stored_at < now() - retention_days * interval '1 day'
            ORDER BY stored_at LIMIT 10000 FOR UPDATE SKIP LOCKED));
        GET DIAGNOSTICS dropped = ROW_COUNT;
    END IF;
    RETURN dropped;
END $$;
