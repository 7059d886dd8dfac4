"""Requests to a service that may fail once, and change nothing twice.

A reading call is tried again whenever the fault may pass. A changing call is not: its answer may
have been lost after the change was made. `Service.ensure` looks at the world in between.
"""

import abc
import dataclasses
import time
from collections.abc import Callable
from typing import Any, TypeVar

from components.common.errors import FlowersError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long to wait for a service.

    Attributes:
        request: For one answer, in seconds.
        first_wait: Before the second try, in seconds; each later wait is twice as long.
        tries: How often a request is sent.
        operation: For an operation that the service works on, in seconds.
        poll: Between two looks at an operation, in seconds.
        settle: How long a change whose answer was lost may take to show, in seconds.
    """

    request: float = 60.0
    first_wait: float = 1.0
    tries: int = 6
    operation: float = 3600.0
    poll: float = 5.0
    settle: float = 20.0


PATIENT = Patience()


class NotFoundError(FlowersError):
    """The service has no such thing."""


class UnfinishedError(FlowersError):
    """The service still works on a change that nobody waits for any longer."""


class Service(abc.ABC):
    """A service behind requests.

    Attributes:
        title: Its name in messages.
        patience: How long to wait for it.
    """

    title: str

    def __init__(self, patience: Patience) -> None:
        self.patience = patience

    @abc.abstractmethod
    def may_pass(self, error: Exception) -> bool:
        """Whether the same request may succeed in a while."""

    @abc.abstractmethod
    def is_taken(self, error: Exception) -> bool:
        """Whether an id is taken: by us, when an earlier answer was lost."""

    @abc.abstractmethod
    def translate(self, error: Exception) -> FlowersError:
        """What a client raised, as one line that says what to do."""

    @abc.abstractmethod
    def finish(self, answer: Any, what: str) -> None:
        """Waits for the operation of an answer, in a service that has such."""

    def repeat(self, call: Callable[[], T]) -> T:
        """Calls what changes nothing, again when a fault may pass.

        Raises:
            FlowersError: See `translate`.
        """
        for attempt in range(self.patience.tries):
            try:
                return call()
            except Exception as error:
                if not self.may_pass(error) or attempt == self.patience.tries - 1:
                    raise self.translate(error) from error
                self._wait(attempt)
        raise AssertionError("there is at least one try")

    def change(self, done: Callable[[], T | None], call: Callable[[], Any], what: str) -> T:
        """Makes a change, once.

        Args:
            done: Looks at the world; not None once the change is there.
            call: Makes the change; may return an operation.
            what: The change in words, for messages.

        Returns:
            What `done` found.

        Raises:
            FlowersError: The change was refused, or its operation ended in an error.
        """
        for attempt in range(self.patience.tries):
            try:
                answer = call()
            except Exception as error:
                taken = self.is_taken(error)
                if not (self.may_pass(error) or taken):
                    raise self.translate(error) from error
                # The answer may have been lost on its way back, so the world is asked first.
                limit = self.patience.operation if taken else self.patience.settle
                if (found := self._settled(done, limit)) is not None:
                    return found
                if taken or attempt == self.patience.tries - 1:
                    raise self.translate(error) from error
                self._wait(attempt)
                continue
            self.finish(answer, what)
            if (found := self._settled(done, self.patience.settle)) is not None:
                return found
            raise FlowersError(f"{what}: {self.title} reports success, and the change is not there")
        raise AssertionError("there is at least one try")

    def _settled(self, done: Callable[[], T | None], limit: float) -> T | None:
        """Asks `done` until it says yes, for `limit` seconds at most."""
        deadline = time.monotonic() + limit
        while (found := done()) is None and time.monotonic() < deadline:
            time.sleep(min(self.patience.poll, max(0.0, deadline - time.monotonic())))
        return found

    def _wait(self, attempt: int) -> None:
        time.sleep(self.patience.first_wait * 2**attempt)
