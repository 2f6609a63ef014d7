"""The evaluator as a service: HTTP in front of `valueflow.service.service.Service`."""
