"""Calling language models: settings, questions, chat templates, admission, the call cache and its cost."""
