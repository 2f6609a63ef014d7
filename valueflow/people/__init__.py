"""Ratings by people: which texts to rate, files for raters, and what comes back."""
