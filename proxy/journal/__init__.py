"""The durable queue on disk between requests and PostgreSQL."""
