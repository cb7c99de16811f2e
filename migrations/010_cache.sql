-- Answers that replicas share, only where `cache.shared` is on. Undone by 010_cache_rollback.sql.

-- Unlogged: what a crash of PostgreSQL takes is asked for again. The request is there as a digest only.
CREATE UNLOGGED TABLE cached_answers (
    digest       BYTEA NOT NULL CHECK (length(digest) = 32),
    form         TEXT NOT NULL CHECK (form IN ('whole', 'events')),
    project_id   TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    content_type TEXT NOT NULL,
    body         BYTEA NOT NULL,
    has_usage    BOOLEAN NOT NULL,
    made_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires_at   TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (digest, form)
);
CREATE INDEX cached_answers_expires_at_idx ON cached_answers (expires_at);
CREATE INDEX cached_answers_made_at_idx ON cached_answers (made_at);

COMMENT ON TABLE cached_answers IS 'Answers of providers in which the policy found nothing, for projects with features.enableCache';
