-- Projects that have ended: their rows stay, because traces, sums and quotas go by their ids, and an id that somebody else
-- could take again would hand over its past. Undone by 007_tenants_rollback.sql.

ALTER TABLE projects ADD COLUMN archived_at TIMESTAMPTZ;
COMMENT ON COLUMN projects.archived_at IS 'When the project was ended: its keys and its requests are refused since';

CREATE OR REPLACE VIEW sidegate_keys AS
SELECT k.id, k.secret_hash, k.name, k.user_id, k.project_id, k.scopes, k.created_by, k.created_at, k.expires_at,
    k.revoked_at, k.last_used_at, k.replaced_by, k.role_limit,
    CASE WHEN sidegate_rank(k.role_limit) < sidegate_rank(r.role) THEN k.role_limit ELSE r.role END AS role,
    k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now()) AND p.archived_at IS NULL AS is_valid
FROM api_keys k
JOIN projects p ON p.id = k.project_id
LEFT JOIN user_roles r ON r.user_id = k.user_id AND r.project_id = k.project_id;

-- The version of a project's settings: another one for every other document.
CREATE FUNCTION sidegate_version(config JSONB) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT left(encode(sha256(convert_to(config::text, 'UTF8')), 'hex'), 32)
$$;
