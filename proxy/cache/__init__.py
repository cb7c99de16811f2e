"""The answer cache: answers that are repeated for equal requests of the same project."""
