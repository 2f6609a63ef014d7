"""Self-contained HTML pages and the dataset card."""
