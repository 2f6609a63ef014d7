"""Profiles of many units on a cluster: `run` of texts that exist, `own_values` of what models write."""
