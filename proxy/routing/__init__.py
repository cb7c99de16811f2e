"""The choice of where a request goes, and the attempts to have it answered."""
