"""Statistics and hashing that several packages share; imports nothing from the rest of the project."""
