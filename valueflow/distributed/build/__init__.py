"""The stages of a VIDB build on Ray: ingest, plan, aggregate, extend, and their pipeline."""
