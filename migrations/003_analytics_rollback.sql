-- Remove what 003_analytics.sql made. Traces stay, so going up again counts those that are left.

DROP TRIGGER sidegate_count_traces ON request_traces;
DROP FUNCTION sidegate_span(TEXT, TIMESTAMPTZ, TIMESTAMPTZ);
DROP FUNCTION sidegate_latency(TEXT, TEXT, TIMESTAMPTZ, TIMESTAMPTZ);
DROP FUNCTION sidegate_usage(TEXT, TEXT, TIMESTAMPTZ, TIMESTAMPTZ);
DROP FUNCTION sidegate_count_traces();
DROP FUNCTION sidegate_is_cached(JSONB);
DROP FUNCTION sidegate_quarter(TIMESTAMPTZ);
DROP FUNCTION sidegate_bucket(BIGINT);
DROP FUNCTION sidegate_microseconds(DOUBLE PRECISION);
DROP FUNCTION sidegate_figure(JSONB, NUMERIC);
DROP INDEX request_traces_project_cost_idx;
DROP TABLE analytics_latency;
DROP TABLE analytics_usage;
DROP FUNCTION sidegate_zone(TEXT);
