"""HiVES, a hierarchical value embedding: examples, batches, losses, encoder and metrics."""
