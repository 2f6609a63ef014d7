"""HTTP API of `valueflow.service.Service` and its deployment with Ray Serve."""
