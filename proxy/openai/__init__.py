"""OpenAI's wire format: what requests, answers, streams and errors look like. Bytes in, values out; no I/O."""
