"""Self-contained HTML pages, cards for the Hugging Face Hub, and tables for the terminal."""
