"""The record of a request: its content, storage and retrieval."""
