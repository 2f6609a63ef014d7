"""Questionnaires put to models: a second read-out beside what they write; items and keys are the user's own."""
