"""The line between the hosts that train one model: they agree on it, and notice who is gone.

Every other host has two connections to host 0. On one all of them agree, each in its turn; the
other tells that its end is alive. Collective operations of devices wait for a lost host for minutes
or for ever; a process of ours ends, with one line, when the second connection does.

A message is a length, `uint64`, and so many bytes.
"""

import atexit
import contextlib
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

from components.common.errors import ConfigError, FlowersError, RetryError
from components.train_model.hosts import COORDINATOR, MOST_HOSTS, Hosts, split_address

STEP = "train-model"
_LENGTH = struct.Struct("<Q")
_AGREE, _ALIVE = "agree", "alive"
_MOST_GREETING = 1000
_MOST = 1 << 40
# The last word of a host that has done its work.
_DONE = b"done"
_INTERRUPTED = 130

# By the number of the host at the other end.
Connections = dict[int, socket.socket]
# Exit code and message.
Failure = tuple[int, str]


class Patience(NamedTuple):
    """How long to wait for other hosts, in seconds.

    Attributes:
        join: Until all are there; a slice starts its machines within minutes.
        silence: Without a sign of life, after which a host is lost.
        beat: Between two signs of life.
        moment: In which the end of a host is noticed, after the operation that missed it.
    """

    join: float = 600.0
    silence: float = 60.0
    beat: float = 1.0
    moment: float = 5.0


PATIENCE = Patience()


class Link:
    """The line between the hosts of one training.

    Args:
        hosts: The place of this process.
        patience: How long to wait for the others.

    Raises:
        ConfigError: Host 0 cannot listen at its address.
        RetryError: Not all hosts came in time.
    """

    def __init__(self, hosts: Hosts, patience: Patience = PATIENCE) -> None:
        self.hosts = hosts
        deadline = time.monotonic() + patience.join
        self._agreeing, alive = (_accept if hosts.is_first else _connect)(hosts, deadline)
        self._watchers = [
            _Watcher(index, one, patience, self._tell_others) for index, one in alive.items()
        ]

    def addresses(self) -> list[str]:
        """Addresses of all hosts, in their order, as host 0 sees them; for host 0."""
        first, _ = split_address(self.hosts.coordinator)
        return [first, *(one.getpeername()[0] for _, one in sorted(self._agreeing.items()))]

    def gather(self, content: Any) -> list[Any]:
        """Gives every host what every host gives, in their order; waits until all have given.

        Args:
            content: Bytes, or plain data.
        """
        mine = _pack(content)
        if self.hosts.is_first:
            connections = [one for _, one in sorted(self._agreeing.items())]
            everything = [mine, *map(_receive, connections)]
            for connection in connections:
                for part in everything:
                    _send(connection, part)
        else:
            (connection,) = self._agreeing.values()
            _send(connection, mine)
            everything = [_receive(connection) for _ in range(self.hosts.count)]
        return [_unpack(part) for part in everything]

    def from_first(self, content: Any = None) -> Any:
        """What host 0 gives; what the others give is not looked at."""
        return self.gather(content if self.hosts.is_first else None)[0]

    def leave(self, failure: Failure | None = None) -> None:
        """Says the last word, without which the others take this host for lost."""
        for watcher in self._watchers:
            watcher.leave(failure)
        for connection in self._agreeing.values():
            connection.close()

    def _tell_others(self, index: int, failure: Failure) -> None:
        """Passes on what ended a host; only host 0 knows them all."""
        for watcher in self._watchers:
            if watcher.index != index:
                watcher.leave(failure)


class _Watcher(threading.Thread):
    """Watches one host, and ends this process when it is gone."""

    def __init__(
        self,
        index: int,
        connection: socket.socket,
        patience: Patience,
        tell_others: Callable[[int, Failure], None],
    ) -> None:
        super().__init__(name=f"host-{index}", daemon=True)
        self.index = index
        self._connection = connection
        self._patience = patience
        self._tell_others = tell_others
        self._left = threading.Event()
        self._sending = threading.Lock()
        self.start()

    def leave(self, failure: Failure | None) -> None:
        """Says the last word to the other side."""
        self._left.set()
        self._say(_DONE if failure is None else json.dumps(failure).encode())

    def run(self) -> None:
        """Watches until either side has said its last word."""
        with self._connection:
            self._watch()

    def _watch(self) -> None:
        """Listens, and gives signs of life."""
        heard = said = time.monotonic()
        while True:
            try:
                if select.select([self._connection], [], [], self._patience.beat)[0]:
                    word = _receive(self._connection)
                    heard = time.monotonic()
                    if word == _DONE:
                        return
                    if word:
                        # JAX aborts a host whose host 0 is gone: the one that failed ends first.
                        time.sleep(self._patience.beat)
                        self._end(*json.loads(word))
            except (OSError, EOFError):
                if self._left.is_set():
                    return
                self._lose("its connection ended")
            now = time.monotonic()
            if now - heard > self._patience.silence and not self._left.is_set():
                self._lose(f"no sign of life for {self._patience.silence:.0f} s")
            if now - said >= self._patience.beat:
                self._say(b"")
                said = now

    def _say(self, word: bytes) -> None:
        # Who is gone is found where it is listened to.
        with contextlib.suppress(OSError), self._sending:
            _send(self._connection, word)

    def _lose(self, why: str) -> NoReturn:
        message = f"host {self.index} was lost: {why}; start all hosts again, which goes on from "
        self._end(RetryError.exit_code, message + "the last checkpoint")

    def _end(self, exit_code: int, message: str) -> NoReturn:
        """Ends the process at once: its main thread may be waiting for the lost host for ever."""
        self._tell_others(self.index, (exit_code, message))
        print(f"{STEP}: exit {exit_code}: {message}", file=sys.stderr, flush=True)
        os._exit(exit_code)


def _accept(hosts: Hosts, deadline: float) -> tuple[Connections, Connections]:
    """Waits for both connections of every other host."""
    found: dict[str, Connections] = {_AGREE: {}, _ALIVE: {}}
    others = set(range(1, hosts.count))
    with _listener(hosts.coordinator) as listener:
        while missing := others - (found[_AGREE].keys() & found[_ALIVE].keys()):
            listener.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                for one in (*found[_AGREE].values(), *found[_ALIVE].values()):
                    one.close()
                names = ", ".join(map(str, sorted(missing)))
                raise RetryError(
                    f"host {names} of {hosts.count} did not come to {hosts.coordinator}; start all "
                    "hosts again"
                ) from None
            greeting = _read_greeting(connection)
            if greeting is None or greeting[1] not in others or greeting[2] != hosts.count:
                # Somebody else: a probe, or a host of another training.
                connection.close()
                continue
            found[greeting[0]][greeting[1]] = _steady(connection)
    return found[_AGREE], found[_ALIVE]


def _listener(address: str) -> socket.socket:
    name, port = split_address(address)
    try:
        family = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0][0]
        with contextlib.suppress(OSError):
            return socket.create_server((name, port), family=family, backlog=MOST_HOSTS)
        # A name that leads here by way of a service is no address of this machine.
        return socket.create_server(("", port), family=family, backlog=MOST_HOSTS)
    except OSError as error:
        raise ConfigError(
            f"{COORDINATOR}: expected an address of host 0 with a free port, received {address} "
            f"({error})"
        ) from error


def _read_greeting(connection: socket.socket) -> tuple[str, int, int] | None:
    """What a host says first: which connection it is, its number, and of how many."""
    connection.settimeout(5.0)
    try:
        line, index, count = json.loads(_receive(connection, _MOST_GREETING))
    except (OSError, EOFError, ValueError, TypeError):
        return None
    return (line, index, count) if line in {_AGREE, _ALIVE} else None


def _connect(hosts: Hosts, deadline: float) -> tuple[Connections, Connections]:
    """Makes both connections to host 0, which may not be there yet."""
    agreeing, alive = (_steady(_reach(hosts, deadline)) for _ in range(2))
    for line, connection in ((_AGREE, agreeing), (_ALIVE, alive)):
        _send(connection, json.dumps((line, hosts.index, hosts.count)).encode())
    return {0: agreeing}, {0: alive}


def _reach(hosts: Hosts, deadline: float) -> socket.socket:
    while True:
        try:
            return socket.create_connection(split_address(hosts.coordinator), timeout=10.0)
        except OSError as error:
            if time.monotonic() > deadline:
                raise RetryError(
                    f"host 0 cannot be reached at {hosts.coordinator} ({error}); start all hosts "
                    "again"
                ) from error
            time.sleep(0.2)


def _steady(connection: socket.socket) -> socket.socket:
    """A connection for many small messages that waits as long as it takes."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _pack(content: Any) -> bytes:
    return b"b" + content if isinstance(content, bytes) else b"j" + json.dumps(content).encode()


def _unpack(part: bytes) -> Any:
    return part[1:] if part[:1] == b"b" else json.loads(part[1:])


def _send(connection: socket.socket, content: bytes) -> None:
    connection.sendall(_LENGTH.pack(len(content)) + content)


def _receive(connection: socket.socket, most: int = _MOST) -> bytes:
    (length,) = _LENGTH.unpack(_receive_exactly(connection, _LENGTH.size))
    if length > most:
        raise EOFError
    return _receive_exactly(connection, length)


def _receive_exactly(connection: socket.socket, count: int) -> bytes:
    content = bytearray()
    while len(content) < count:
        part = connection.recv(min(count - len(content), 1 << 20))
        if not part:
            raise EOFError
        content += part
    return bytes(content)


def _exit(exit_code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


@contextlib.contextmanager
def joined(hosts: Hosts, patience: Patience = PATIENCE) -> Iterator[Link | None]:
    """Joins the other hosts for the time of the block; None for a process that is alone.

    An error within the block ends the other hosts too, with the same code.
    """
    if hosts.count == 1:
        yield None
        return
    link = Link(hosts, patience)
    try:
        yield link
        # Nobody leaves before host 0 has written everything.
        link.gather(None)
    except FlowersError as error:
        link.leave((error.exit_code, f"host {hosts.index}: {error}"))
        if not isinstance(error, RetryError):
            # Without the handlers of libraries, which would wait for the others.
            atexit.register(_exit, error.exit_code)
        raise
    except Exception as error:
        # What fails where a host was lost: its watcher knows, and ends this process.
        time.sleep(patience.moment)
        link.leave((1, f"host {hosts.index} failed with {type(error).__name__}, see its output"))
        raise
    except BaseException:
        link.leave((_INTERRUPTED, f"host {hosts.index} was interrupted"))
        raise
    link.leave()
