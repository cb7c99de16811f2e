"""Delivery of answers from the provider to the client."""
