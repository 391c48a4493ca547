"""What a process can still do once it is confined, tried out by one that is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gateway.imaging.sandbox import landlock

# Each gives its outcome as a word; all modules are loaded before.
PROGRAM = """
import errno, os, resource, signal, socket, sys, _posixsubprocess
from gateway.imaging.sandbox import confine
confine(parent=os.getppid(), memory_bytes=400 << 20, cpu_s=60)
def tried(what):
    try:
        what()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "done"
print(tried({what}))
"""
ANYWHERE = {
    "memory": ("lambda: bytearray(500 << 20)", "MemoryError"),
    "files": ("lambda: [os.pipe() for _ in range(20)]", "OSError"),
    "raising_a_limit": ("lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))", "done"),
}
WITH_LANDLOCK = {
    "reading": (1, "lambda: open('/etc/hostname')"),
    "the_keys_of_the_gateway": (1, "lambda: open(f'/proc/{os.getppid()}/environ')"),
    "writing": (1, "lambda: open('/tmp/darkroom-confined', 'w')"),
    "a_program": (1, "lambda: os.execv('/bin/true', ['true'])"),
    "the_network": (4, "lambda: socket.create_connection(('127.0.0.1', 9))"),
    "a_signal": (6, "lambda: os.kill(os.getppid(), signal.SIGCONT)"),
}


def outcome(what: str) -> str:
    """What becomes of it in a confined process."""
    program = PROGRAM.replace("{what}", what)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(("what", "expected"), ANYWHERE.values(), ids=ANYWHERE.keys())
def test_limits(what: str, expected: str) -> None:
    """The limits that every kernel has."""
    assert outcome(what) == expected


@pytest.mark.parametrize(("version", "what"), WITH_LANDLOCK.values(), ids=WITH_LANDLOCK.keys())
def test_forbidden(version: int, what: str) -> None:
    """What Landlock forbids, where there is one."""
    if landlock() < version:
        pytest.skip(f"this kernel has no Landlock {version}")
    assert outcome(what) == "PermissionError"


def test_whose_parent_is_gone() -> None:
    """It does not begin where the process that it belongs to has ended already."""
    program = (
        f"from gateway.imaging.sandbox import confine; confine(parent={os.getpid()}0, memory_bytes=1 << 30, cpu_s=9)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 1
