"""A panel's votes: when they decide, where a text goes in a theory, how far the voters agree."""
