"""Answers that are kept, to be given again to the same request of the same project."""
