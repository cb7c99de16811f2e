-- Remove what 009_analytics_days.sql made.

DROP INDEX analytics_latency_day_idx;
DROP INDEX analytics_usage_day_idx;
