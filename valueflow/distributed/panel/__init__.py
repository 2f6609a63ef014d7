"""A panel of voters on Ray: votes, and the categorization of texts."""
