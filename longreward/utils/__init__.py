"""Small helpers that belong to no domain of the project."""
