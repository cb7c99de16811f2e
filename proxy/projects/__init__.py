"""The settings of projects, as far as requests need them: in memory, so that no request queries PostgreSQL for them."""
