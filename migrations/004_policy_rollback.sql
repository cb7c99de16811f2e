-- Remove what 004_policy.sql made. Traces stay, without what the policy found.

ALTER TABLE request_traces DROP COLUMN policy;
