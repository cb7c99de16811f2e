-- Remove what 008_analytics_sums.sql made. The sums that it summed stay, so going up again sums them anew.

DROP TRIGGER sidegate_count_findings ON request_traces;
DROP FUNCTION sidegate_count_findings();
DROP FUNCTION sidegate_findings(TEXT, TIMESTAMPTZ, TIMESTAMPTZ);
DROP TRIGGER sidegate_usage_sums_on_insert ON analytics_usage;
DROP TRIGGER sidegate_usage_sums_on_update ON analytics_usage;
DROP TRIGGER sidegate_usage_sums_on_delete ON analytics_usage;
DROP TRIGGER sidegate_latency_sums_on_insert ON analytics_latency;
DROP TRIGGER sidegate_latency_sums_on_update ON analytics_latency;
DROP TRIGGER sidegate_latency_sums_on_delete ON analytics_latency;
DROP FUNCTION sidegate_usage_sums_on_insert();
DROP FUNCTION sidegate_usage_sums_on_update();
DROP FUNCTION sidegate_usage_sums_on_delete();
DROP FUNCTION sidegate_latency_sums_on_insert();
DROP FUNCTION sidegate_latency_sums_on_update();
DROP FUNCTION sidegate_latency_sums_on_delete();
DROP FUNCTION sidegate_usage_sums(DATE, DATE);
DROP FUNCTION sidegate_latency_sums(DATE, DATE);
DROP TABLE analytics_findings;
DROP TABLE analytics_latency_sums;
DROP TABLE analytics_sums;
