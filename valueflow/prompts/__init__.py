"""Prompt templates and how windows become messages."""
