"""Steering on the cluster: replies of models to planned prompts, and studies of them."""
