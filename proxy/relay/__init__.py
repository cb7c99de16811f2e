"""Answers on their way from the provider to the client."""
