"""HiVES, a hierarchical value embedding: examples, batches, losses and what is measured of it."""
