"""Processes that end with the one they work for, in whatever way that ends."""

import _thread
import ctypes
import math
import os
import select
import signal
import sys
from pathlib import Path

# Names the process of the run in the environment of its tasks.
RUN_PROCESS = "FLOWERS_RUN_PROCESS"
_PR_SET_PDEATHSIG = 1
# What a container may use: time of all cores together, and the period it is for, in microseconds.
# Source: https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def count_cores() -> int:
    """CPU cores that this process may use, which a container may have fewer of than it sees."""
    seen = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        seen = len(os.sched_getaffinity(0))
    return min(seen, _quota() or seen)


def _quota() -> int:
    """The quota of this container in cores, rounded up; 0 for none."""
    try:
        time, period = map(int, _CPU_MAX.read_text().split())
        return max(1, math.ceil(time / period))
    except (OSError, ValueError, ArithmeticError):
        # No such file, or `max` in place of a number.
        return 0


def end_with_run() -> None:
    """Kills this process when that of its run is gone; a process of no run goes on.

    A run that is killed leaves its task behind, which would write, compute and hold memory for
    nobody, beside the one that takes its place. Where the system cannot watch a process (other
    than Linux) nothing happens.
    """
    pid = os.environ.get(RUN_PROCESS, "")
    if not pid.isdecimal() or not hasattr(os, "pidfd_open"):
        return
    try:
        run = os.pidfd_open(int(pid))
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGKILL)
        return
    # A bare thread that waits in the kernel: it holds no lock, so this process may still fork.
    _thread.start_new_thread(_kill_after, (run,))


def _kill_after(run: int) -> None:
    waiting = select.poll()
    waiting.register(run, select.POLLIN)
    waiting.poll()
    os.kill(os.getpid(), signal.SIGKILL)


def end_with_parent() -> None:
    """Has the system kill this process, a worker, when its parent is gone (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
