"""The intensity of a text: windows of anchors and a posterior, a regression on embeddings, and the official files."""
