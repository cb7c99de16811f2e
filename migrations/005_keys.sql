-- Keys of callers, and the record of who changed what. Undone by 005_keys_rollback.sql.

-- A key is `sg-<id>-<secret>`; of the secret only its SHA-256 is kept. Keys are random, so a plain digest cannot be
-- guessed back. The role is that of the user in the project, in user_roles.
CREATE TABLE api_keys (
    id           TEXT PRIMARY KEY CHECK (id ~ '^[a-z0-9]{12}$'),
    secret_hash  BYTEA NOT NULL CHECK (length(secret_hash) = 32),
    name         TEXT NOT NULL,
    user_id      TEXT NOT NULL CHECK (user_id <> ''),
    project_id   TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    scopes       JSONB NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(scopes) = 'object'),
    created_by   TEXT NOT NULL,
    created_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires_at   TIMESTAMPTZ,
    revoked_at   TIMESTAMPTZ,
    last_used_at TIMESTAMPTZ,
    replaced_by  TEXT
);
CREATE INDEX api_keys_project_id_idx ON api_keys (project_id, created_at DESC);

COMMENT ON COLUMN api_keys.scopes IS '{"models": [...], "operations": [...], "surfaces": ["data", "api"]}; absent: all';
COMMENT ON COLUMN api_keys.last_used_at IS 'Written lazily: up to auth.last_used_s behind';

-- Written before a change is made, and completed after it: a row that stayed `begun` is a change whose end is not known.
CREATE TABLE audit_log (
    id         BIGSERIAL PRIMARY KEY,
    at         TIMESTAMPTZ NOT NULL DEFAULT now(),
    actor      TEXT NOT NULL,
    key_id     TEXT,
    peer       TEXT,
    action     TEXT NOT NULL,
    project_id TEXT,
    target     TEXT,
    details    JSONB NOT NULL DEFAULT '{}',
    outcome    TEXT NOT NULL DEFAULT 'begun' CHECK (outcome IN ('begun', 'done', 'refused', 'failed'))
);
CREATE INDEX audit_log_project_id_idx ON audit_log (project_id, id DESC);
