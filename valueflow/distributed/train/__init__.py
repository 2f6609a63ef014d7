"""Training of HiVES on Ray Train with DeepSpeed."""
