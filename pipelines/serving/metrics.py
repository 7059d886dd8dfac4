"""What Prometheus is told."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "flowers_requests_total",
            "Requests by route and status code.",
            ["route", "code"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "flowers_request_seconds",
            "From the headers of a request to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.photos = Counter(
            "flowers_photos_total",
            "Photos by the class that was answered; empty for one that was refused.",
            ["label"],
            registry=self.registry,
        )
        self.batches = Histogram(
            "flowers_batch_photos",
            "Photos that the model was asked about at once.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "flowers_photos_in_flight",
            "Photos that wait or are worked on.",
            registry=self.registry,
        )
        self.ready = Gauge(
            "flowers_ready", "1 when the model is loaded and warm.", registry=self.registry
        )
        self.model = Gauge(
            "flowers_model_info",
            "Always 1; the labels say which model it is.",
            ["architecture", "digest", "data"],
            registry=self.registry,
        )
