"""The benchmark that a user can run: `make bench`, or `python -m bench.run --help`."""
