-- A key never may more than the key that made it: what holds it back when its user's role rises later.
-- Undone by 006_key_bounds_rollback.sql.

ALTER TABLE api_keys ADD COLUMN role_limit TEXT CHECK (role_limit IN ('viewer', 'developer', 'admin', 'owner'));
COMMENT ON COLUMN api_keys.role_limit IS 'The most that its user''s role counts for with this key; NULL: no such limit';

-- How much a role may do. NULL: no role.
CREATE FUNCTION sidegate_rank(role TEXT) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT array_position(ARRAY['viewer', 'developer', 'admin', 'owner'], role)
$$;

-- Keys with what they are good for now: `role` is that of the user in the project, within `role_limit`.
CREATE VIEW sidegate_keys AS
SELECT k.id, k.secret_hash, k.name, k.user_id, k.project_id, k.scopes, k.created_by, k.created_at, k.expires_at,
    k.revoked_at, k.last_used_at, k.replaced_by, k.role_limit,
    CASE WHEN sidegate_rank(k.role_limit) < sidegate_rank(r.role) THEN k.role_limit ELSE r.role END AS role,
    k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now()) AS is_valid
FROM api_keys k LEFT JOIN user_roles r ON r.user_id = k.user_id AND r.project_id = k.project_id;
