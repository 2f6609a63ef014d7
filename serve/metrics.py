"""Prometheus metrics of requests; labels (route, status, reason) have few values."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 600)


class Metrics:
    """The metrics of one application, in its own registry."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "valueflow_http_requests",
            "Requests; status 499: the client disconnected",
            ["route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "valueflow_http_seconds", "Seconds from request to last byte", ["route"], buckets=SECONDS, registry=registry
        )
        self.in_flight = Gauge("valueflow_http_in_flight", "Requests that hold a slot", registry=registry)
        self.queued = Gauge("valueflow_http_queued", "Admitted requests waiting for a slot", registry=registry)
        self.rejected = Counter("valueflow_http_rejected", "Requests refused or failed", ["reason"], registry=registry)
        self.texts = Counter("valueflow_http_texts", "Texts of answered requests", ["route"], registry=registry)
        self.units = Counter("valueflow_http_units", "Texts times values of answered requests", ["route"], registry=registry)

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self._registry)
