"""The management API: `/v1/traces` and what follows, beside the relayed endpoints."""
