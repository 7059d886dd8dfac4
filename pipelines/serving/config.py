"""How the server serves; needs no library."""

import dataclasses

from components.common.config import Range, check
from components.common.errors import ConfigError

_MIB = 2**20


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """How the server serves.

    Attributes:
        host: Address to listen on; 0.0.0.0 for every one.
        port: Port to listen on; 0 for a free one.
        name: Name of the model in the routes, /v1/models/NAME:predict.
        max_batch: Most photos that the model is asked about at once.
        max_photos: Photos that may wait or be worked on; a request above it gets 429.
        max_instances: Most photos of one request.
        max_body: Largest request, in MiB.
        max_memory: Bytes of all requests together, in MiB; a request above it gets 503.
        max_megapixels: Largest photo by its header, in millions of pixels.
        max_connections: Open connections; one above it gets 503.
        timeout: For an answer, in seconds.
        body_timeout: For a request to arrive, in seconds, and as long for its headers.
        grace: For answers that are under way when the server is told to stop, in seconds.
        workers: Threads that decode photos; 0: one per core.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    name: str = "flowers"
    max_batch: int = 32
    max_photos: int = 256
    max_instances: int = 128
    max_body: int = 16
    max_memory: int = 256
    max_megapixels: float = 50.0
    max_connections: int = 512
    timeout: float = 10.0
    body_timeout: float = 10.0
    grace: float = 20.0
    workers: int = 0

    def __post_init__(self) -> None:
        check("port", self.port, Range(0, 65535))
        check("max_batch", self.max_batch, Range(1, 1024))
        check("max_photos", self.max_photos, Range(1, 100_000))
        check("max_instances", self.max_instances, Range(1, self.max_photos))
        check("max_body", self.max_body, Range(1, 1024))
        check("max_memory", self.max_memory, Range(self.max_body, 2**20))
        check("max_megapixels", self.max_megapixels, Range(0.01, 128.0))
        check("max_connections", self.max_connections, Range(1, 65_536))
        for name in ("timeout", "body_timeout"):
            check(name, getattr(self, name), Range(0.1, 3600.0))
        check("grace", self.grace, Range(0.0, 3600.0))
        check("workers", self.workers, Range(0, 256))
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(
                f"name: expected letters, digits, - and _, received {self.name!r:.60}"
            )

    @property
    def max_body_bytes(self) -> int:
        """Largest request, in bytes."""
        return self.max_body * _MIB

    @property
    def max_memory_bytes(self) -> int:
        """All requests together, in bytes."""
        return self.max_memory * _MIB
