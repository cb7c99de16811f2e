-- Remove what 014_response_chains.sql made. Traces keep the conversations that they were stored with.

DROP FUNCTION sidegate_drop_chains(INTEGER);
DROP FUNCTION sidegate_chains(JSONB);
DROP FUNCTION sidegate_chain_end(TEXT, TEXT);
DROP TABLE response_chains;
