"""Where a request goes, and the attempts to get it answered."""
