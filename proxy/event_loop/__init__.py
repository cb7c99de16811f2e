"""Keeping the event loop free: work in threads, their turns, and batched writes."""
