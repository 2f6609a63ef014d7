"""Corpora as texts, labels and rejected rows: one small module per public format, and one for a user's own files."""

from valueflow.corpora.reader import CorpusConfig, check, read

__all__ = ["CorpusConfig", "check", "read"]
