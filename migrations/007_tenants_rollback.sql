-- Remove what 007_tenants.sql made. Projects that had ended go on.

DROP FUNCTION sidegate_version(JSONB);
CREATE OR REPLACE VIEW sidegate_keys AS
SELECT k.id, k.secret_hash, k.name, k.user_id, k.project_id, k.scopes, k.created_by, k.created_at, k.expires_at,
    k.revoked_at, k.last_used_at, k.replaced_by, k.role_limit,
    CASE WHEN sidegate_rank(k.role_limit) < sidegate_rank(r.role) THEN k.role_limit ELSE r.role END AS role,
    k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now()) AS is_valid
FROM api_keys k LEFT JOIN user_roles r ON r.user_id = k.user_id AND r.project_id = k.project_id;
ALTER TABLE projects DROP COLUMN archived_at;
