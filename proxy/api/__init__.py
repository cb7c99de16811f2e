"""The API of our own: `/v1/traces` and what follows, beside the relayed endpoints."""
