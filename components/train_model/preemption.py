"""SIGTERM, by which a machine says that it is taken away: training is saved and goes on later."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from components.common.errors import RetryError


class Preemption:
    """Whether this process was told to end.

    Between steps a training asks for it; where there is nothing to save it is ended at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._held = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within the block the signal waits for somebody to look at `asked`."""
        self._held = True
        self.listen()
        try:
            yield
        finally:
            self._held = False

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        if not self._held:
            raise RetryError(
                "told to end (SIGTERM) while there was nothing to save; start the same again"
            )

    def listen(self) -> None:
        """Listens for the signal, where a process may: in its main thread.

        JAX and TensorFlow take the signal for themselves when they join several hosts.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._take)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listens for the signal within the block."""
        before = signal.getsignal(signal.SIGTERM)
        self.listen()
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)
