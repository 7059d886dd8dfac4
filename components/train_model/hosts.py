"""The hosts that train one model together, and the place of this process among them.

A process learns its place from the environment; without the three variables it is alone:

    FLOWERS_HOSTS         number of hosts
    FLOWERS_HOST          which one this is, from 0
    FLOWERS_COORDINATOR   NAME:PORT of host 0, on which it listens
"""

import dataclasses
from collections.abc import Mapping

from components.common.config import Range, check
from components.common.errors import ConfigError

COUNT, INDEX, COORDINATOR = "FLOWERS_HOSTS", "FLOWERS_HOST", "FLOWERS_COORDINATOR"
MOST_HOSTS = 4096


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The place of a process among those that train one model.

    Attributes:
        count: Number of hosts.
        index: Which one this is, from 0; host 0 writes what is written.
        coordinator: `NAME:PORT` of host 0; empty where there is one host.
    """

    count: int = 1
    index: int = 0
    coordinator: str = ""

    def __post_init__(self) -> None:
        check(COUNT, self.count, Range(1, MOST_HOSTS))
        check(INDEX, self.index, Range(0, self.count - 1))
        if self.count > 1:
            split_address(self.coordinator)

    @property
    def is_first(self) -> bool:
        """Whether this host writes outputs and checkpoints."""
        return self.index == 0

    def share(self, count: int) -> range:
        """The part of this host, out of so many examples in a row; parts differ by one at most."""
        return range(count * self.index // self.count, count * (self.index + 1) // self.count)


ALONE = Hosts()


def read_hosts(environment: Mapping[str, str]) -> Hosts:
    """Reads the place of this process.

    Raises:
        ConfigError: A variable is missing or wrong.
    """
    given = {name: environment.get(name, "") for name in (COUNT, INDEX, COORDINATOR)}
    if not any(given.values()):
        return ALONE
    for name, value in given.items():
        if not value:
            raise ConfigError(f"{name}: missing; {', '.join(given)} go together")
    count, index = (_whole_number(name, given[name]) for name in (COUNT, INDEX))
    return Hosts(count, index, given[COORDINATOR])


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name}: expected a whole number, received {text!r}") from None


def split_address(address: str) -> tuple[str, int]:
    """Name and port of `NAME:PORT`; an IPv6 address stands in brackets.

    Raises:
        ConfigError: It is none.
    """
    name, _, port = address.rpartition(":")
    if not name or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigError(f"{COORDINATOR}: expected NAME:PORT of host 0, received {address!r}")
    return name.strip("[]"), int(port)
