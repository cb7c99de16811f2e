"""The record of a request: what it holds, how it is stored and found again."""
