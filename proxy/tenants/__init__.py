"""Whom requests belong to: organizations, their projects, and who is what in a project."""
