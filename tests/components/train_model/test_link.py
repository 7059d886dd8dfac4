import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from components.common.errors import ConfigError, RetryError
from components.train_model.hosts import ALONE, Hosts, read_hosts
from components.train_model.link import Link, Patience, joined

HASTY = Patience(join=20.0, silence=1.0, beat=0.1, moment=0.2)


def free_address():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


def on_every_host(count, action):
    """What an action on the link of each host gives, in threads of this process."""
    address, results = free_address(), {}

    def run(index):
        with joined(Hosts(count, index, address), HASTY) as link:
            results[index] = action(link)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [results[index] for index in range(count)]


@pytest.mark.parametrize("count", [2, 5])
def test_every_host_gets_what_every_host_gives(count):
    def action(link):
        return [link.gather({"host": link.hosts.index, "round": one}) for one in range(3)]

    expected = [[{"host": i, "round": one} for i in range(count)] for one in range(3)]
    assert on_every_host(count, action) == [expected] * count


def test_bytes_of_host_0_reach_all():
    content = os.urandom(3 << 20)
    given = on_every_host(3, lambda link: link.from_first(content))
    assert given == [content] * 3


def test_silence_within_an_operation_is_no_loss():
    """The main thread of a host may be busy for longer than the others would wait for a sign."""

    def action(link):
        if link.hosts.index == 1:
            time.sleep(2 * HASTY.silence)
        return link.gather(link.hosts.index)

    assert on_every_host(2, action) == [[0, 1]] * 2


def test_strangers_are_sent_away():
    address = free_address()
    name, port = address.split(":")

    def stranger():
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with socket.create_connection((name, int(port)), timeout=1) as one:
                    one.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    return
            except OSError:
                time.sleep(0.02)

    threading.Thread(target=stranger, daemon=True).start()
    other = threading.Timer(1.0, lambda: Link(Hosts(2, 1, address), HASTY).leave())
    other.start()
    link = Link(Hosts(2, 0, address), HASTY)
    other.join()
    link.leave()


def test_host_that_does_not_come():
    address = free_address()
    with pytest.raises(RetryError, match=rf"host 1, 2 of 3 did not come to {address}"):
        Link(Hosts(3, 0, address), HASTY._replace(join=0.3))


def test_host_0_that_is_not_there():
    address = free_address()
    with pytest.raises(RetryError, match=f"host 0 cannot be reached at {address}"):
        Link(Hosts(2, 1, address), HASTY._replace(join=0.3))


# What one host does while host 0, and a third one, wait for something that never comes.
HOST = """
import sys, time
from components.common.errors import DataError
from components.train_model.hosts import Hosts
from components.train_model.link import Patience, joined
index, address, what = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with joined(Hosts(3, index, address), Patience(20.0, 1.0, 0.1, 0.2)):
    print("joined", flush=True)
    if index != 1:
        time.sleep(60)
    sys.stdin.readline()
    if what == "refuse":
        raise DataError("these photos are damaged")
    if what == "break":
        raise KeyError("x")
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        ("kill", 75, "exit 75: host 1 was lost: its connection ended; start all hosts again"),
        ("stop", 75, "exit 75: host 1 was lost: no sign of life for 1 s"),
        ("refuse", 2, "exit 2: host 1: these photos are damaged"),
        ("break", 1, "exit 1: host 1 failed with KeyError"),
    ],
)
def test_end_of_a_host_ends_the_others(what, code, words):
    address = free_address()
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, str(index), address, what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(3)
    ]
    for host in hosts:
        assert host.stdout
        assert host.stdout.readline() == "joined\n"
    if what == "kill":
        hosts[1].kill()
    elif what == "stop":
        hosts[1].send_signal(19)
    else:
        assert hosts[1].stdin
        hosts[1].stdin.write("\n")
        hosts[1].stdin.flush()
    began = time.monotonic()
    try:
        for index in (0, 2):
            _, errors = hosts[index].communicate(timeout=20)
            assert hosts[index].returncode == code
            assert f"train-model: {words}" in errors
        assert time.monotonic() - began < 10
    finally:
        hosts[1].kill()
        hosts[1].communicate()


PLACE = {"FLOWERS_HOSTS": "4", "FLOWERS_HOST": "2", "FLOWERS_COORDINATOR": "a-0.a:8471"}


def test_place_comes_from_the_environment():
    assert read_hosts({}) == ALONE
    assert read_hosts(PLACE) == Hosts(4, 2, "a-0.a:8471")
    assert read_hosts(PLACE | {"FLOWERS_HOSTS": "1", "FLOWERS_HOST": "0"}).is_first


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"FLOWERS_HOST": "4"}, "FLOWERS_HOST: expected 0 to 3, received 4"),
        ({"FLOWERS_HOST": ""}, "FLOWERS_HOST: missing"),
        ({"FLOWERS_HOSTS": "two"}, "FLOWERS_HOSTS: expected a whole number, received 'two'"),
        ({"FLOWERS_HOSTS": "0"}, "FLOWERS_HOSTS: expected 1 to 4096"),
        ({"FLOWERS_COORDINATOR": "a-0.a"}, "FLOWERS_COORDINATOR: expected NAME:PORT"),
        ({"FLOWERS_COORDINATOR": "a:99999"}, "FLOWERS_COORDINATOR: expected NAME:PORT"),
    ],
)
def test_wrong_place(changes, words):
    with pytest.raises(ConfigError, match=words):
        read_hosts(PLACE | changes)
