"""ValueFlow: measure and steer the human values expressed in text (arXiv 2602.03160)."""

__version__ = "0.6.0"
