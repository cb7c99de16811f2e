"""The life of the process: its workers, memory, configuration in use, and load."""
