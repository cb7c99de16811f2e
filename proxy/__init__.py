"""Sidegate: an OpenAI-compatible reverse-proxy sidecar."""
