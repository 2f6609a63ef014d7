"""Numbers about requests for Prometheus; labels are routes, statuses and reasons, all of them few."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 600)


class Metrics:
    """The counters of one application, in a registry of its own."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self.requests = Counter(
            "valueflow_http_requests", "Answered requests; 499: the client went away", ["route", "status"], registry=own
        )
        self.seconds = Histogram(
            "valueflow_http_seconds", "Time from request to last byte", ["route"], buckets=SECONDS, registry=own
        )
        self.in_flight = Gauge("valueflow_http_in_flight", "Requests being worked on", registry=own)
        self.queued = Gauge("valueflow_http_queued", "Requests admitted that do not work yet", registry=own)
        self.rejected = Counter("valueflow_http_rejected", "Requests refused or failed", ["reason"], registry=own)
        self.texts = Counter("valueflow_http_texts", "Texts of answered requests", ["route"], registry=own)
        self.units = Counter("valueflow_http_units", "Texts times values of answered requests", ["route"], registry=own)

    def text(self) -> bytes:
        """Return all numbers in Prometheus' text format."""
        return generate_latest(self._registry)
