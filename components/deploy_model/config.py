"""How a model is deployed; needs no library."""

import dataclasses
import re

from components.common.config import Range, check
from components.common.errors import ConfigError

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?")
_MACHINE = re.compile(r"[a-z]\w*-[a-z]+(-\w+)*")
SERVING_IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"


@dataclasses.dataclass(frozen=True)
class DeployConfig:
    """When a challenger takes the champion's place, and how.

    Attributes:
        significance: Largest p-value of the one-sided exact McNemar test at which the challenger
            counts as better than the champion, above 0 and at most 0.5. At 0.5 one more photo
            right is enough.
        canary_percent: Share of the traffic that the challenger gets first, 1 to 50.
        probes: Number of test photos that are sent to the canary.
        tolerance: Largest difference of a served probability from the evaluated one.
    """

    significance: float = 0.05
    canary_percent: int = 10
    probes: int = 8
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        check("significance", self.significance, Range(1e-6, 0.5))
        check("canary_percent", self.canary_percent, Range(1, 50))
        check("probes", self.probes, Range(1, 1000))
        check("tolerance", self.tolerance, Range(0.0, 1.0))


@dataclasses.dataclass(frozen=True)
class ServingConfig:
    """What serves the model on Vertex AI; a local registry needs none of it.

    Attributes:
        machine_type: Machine of the endpoint.
        min_replicas: Fewest machines.
        max_replicas: Most machines.
        image: Container that serves a SavedModel.
        service_account: Account the container runs as; empty for Vertex AI's own.
        encryption_key: Cloud KMS key for model and endpoint; empty for Google's own.
        staging: `gs://` folder for a SavedModel that is not in a bucket yet.
    """

    machine_type: str = "n1-standard-2"
    min_replicas: int = 1
    max_replicas: int = 1
    image: str = SERVING_IMAGE
    service_account: str = ""
    encryption_key: str = ""
    staging: str = ""

    def __post_init__(self) -> None:
        if not _MACHINE.fullmatch(self.machine_type):
            raise ConfigError(
                f"machine_type: expected e.g. n1-standard-2, received {self.machine_type}"
            )
        check("min_replicas", self.min_replicas, Range(1, 100))
        check("max_replicas", self.max_replicas, Range(self.min_replicas, 100))
        if self.staging and not self.staging.startswith("gs://"):
            raise ConfigError(f"staging: expected gs://BUCKET/FOLDER, received {self.staging!r}")


def check_model_name(name: str) -> None:
    """Refuses a name that cannot be a model's and an endpoint's id.

    Raises:
        ConfigError: Says what was expected.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "model name: expected lower-case letters, digits and hyphens, up to 50, received "
            f"{name!r}"
        )
