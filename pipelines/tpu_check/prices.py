"""What a chip costs: a table that the user can replace."""

from pathlib import Path

from components.common.config import Range, check, choose, read_mapping
from components.common.errors import ConfigError
from pipelines.targets.tpu_chips import CHIPS

DEFAULT_PRICES = Path(__file__).with_name("prices.yaml")


def load_prices(path: Path | None = None) -> dict[str, float]:
    """Reads a price table.

    Args:
        path: YAML file of the user; None for the table of the package.

    Returns:
        Generation -> US dollars for one chip and one hour.

    Raises:
        ConfigError: It is absent, or not a table of prices by generation.
    """
    if path is not None and not path.is_file():
        raise ConfigError(f"--prices {path}: no such file; flowers tpu prices prints one to edit")
    table = read_mapping(str(path or DEFAULT_PRICES))
    for generation, price in table.items():
        choose("--prices", str(generation), CHIPS)
        if isinstance(price, bool) or not isinstance(price, (int, float)):
            raise ConfigError(f"--prices: {generation}: expected a number, received {price!r}")
        check(f"--prices: {generation}", float(price), Range(0.0))
    return {str(generation): float(price) for generation, price in table.items()}
