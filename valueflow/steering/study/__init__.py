"""The steerability study: which values a model can be steered on, how far, with which side effects, and how sure that is."""
