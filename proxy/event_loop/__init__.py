"""The event loop beside long work: threads, their turns, and the writes of one turn of the loop."""
