"""Configuration: the schema of all keys, and how file, environment and flags become one immutable value."""
