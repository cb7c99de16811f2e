"""PostgreSQL: connections, the schema and a private server for those who have none."""
