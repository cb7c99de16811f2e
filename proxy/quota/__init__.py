"""Quotas: what requests may use, what they hold, and what they are charged."""
