"""What projects decide for themselves, as far as requests need it: no question to PostgreSQL in the path of one."""
