-- A check, a rebuild and the sums of sums read single days of everybody. Undone by 009_analytics_days_rollback.sql.

CREATE INDEX analytics_usage_day_idx ON analytics_usage (day);
CREATE INDEX analytics_latency_day_idx ON analytics_latency (day);
