"""The sandboxed decoder process: drops its privileges, then decodes images from its standard input, a socket."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
from typing import Any

from gateway.imaging import protocol
from normalization.images import prepare, transform
from normalization.images.sniff import BadImage
from normalization.images.transform import load_codecs
from normalization.values import Image

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
# Landlock's calls have the same numbers on every architecture.
_CREATE_RULESET, _RESTRICT_SELF, _GET_VERSION = 444, 446, 1
# The forbidden rights, with the Landlock version that introduced them: files; TCP sockets; signals to other processes
# and abstract sockets.
_FORBIDDEN = ((1, (1 << 13) - 1), (4, 3), (6, 3))
# The socket, and a few for the interpreter itself.
_FILES = 16


def confine(*, parent: int, memory_bytes: int, cpu_s: int) -> None:
    """Limit memory and processor time, drop file access and privileges, and die with the process `parent`.

    If the kernel supports Landlock, no file can be opened afterwards, including the gateway's own in /proc; with later
    versions, no TCP connection can be made and no other process signalled. Other system calls are not restricted: that
    is left to the container.
    """
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: _FILES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in limits.items():
        _, hard = resource.getrlimit(kind)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (value, value))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        for option, value in ((_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_NO_NEW_PRIVS, 1)):
            if libc.prctl(option, int(value), 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), f"prctl {option}")
        _close_files(libc)
    if os.getppid() != parent:
        sys.exit(1)  # the parent ended before the death signal was set


def landlock() -> int:
    """The kernel's Landlock version; below 1 if it is not supported."""
    if sys.platform != "linux":
        return 0
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    return int(syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint(_GET_VERSION)))


def _close_files(libc: ctypes.CDLL) -> None:
    """Forbid opening files, sockets and signals with Landlock, if the kernel supports it."""
    syscall = libc.syscall
    syscall.restype = ctypes.c_long
    if (version := landlock()) < 1:
        return  # an older kernel, or Landlock is disabled
    rights = [bits for since, bits in _FORBIDDEN if version >= since]
    attributes = (ctypes.c_uint64 * len(rights))(*rights)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    ruleset = syscall(ctypes.c_long(_CREATE_RULESET), attributes, size, ctypes.c_uint(0))
    if ruleset < 0 or syscall(ctypes.c_long(_RESTRICT_SELF), ctypes.c_int(ruleset), ctypes.c_uint(0)) != 0:
        raise OSError(ctypes.get_errno(), "landlock")
    os.close(ruleset)


def main() -> None:
    """Work until the gateway closes the socket. The arguments are the gateway's process id and the limits."""
    parent, memory_bytes, cpu_s, most = (int(text) for text in sys.argv[1:5])
    link = socket.socket(fileno=0)
    # Everything is loaded now, while files can still be opened.
    load_codecs()
    confine(parent=parent, memory_bytes=memory_bytes, cpu_s=cpu_s)
    while True:
        try:
            head, data = protocol.read(link, most)
        except (protocol.ProtocolError, ConnectionError):
            return
        try:
            answer, made = _done(head, data)
        except BadImage as error:
            answer, made = {"code": error.code, "message": error.message, "advice": error.advice}, b""
        except MemoryError:
            answer, made = {"starved": True}, b""
        protocol.write(link, answer, made)
        if "starved" in answer:
            return
        del data, made


def _done(head: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Process one message; `same` means that the image is unchanged. Raises BadImage and MemoryError."""
    header = protocol.to_header(head["header"])
    notes: tuple[str, ...] = ()
    channel, black = b"", False
    if head["do"] == "prepare":
        image = transform.prepare(Image(data=data, header=header), head["most"])
    elif head["do"] == "send":
        ready = prepare.ready(Image(data=data, header=header), protocol.to_sending(head["sending"]), head["most"])
        image, channel, black, notes = ready.image, ready.alpha or b"", ready.black, ready.notes
    else:
        steps, data = protocol.to_steps(head["steps"], data)
        image, notes = transform.finish(data, header, steps, head["most"])
    same = image.data is data
    answer = {"same": same, "notes": notes, "alpha": image.header.alpha, "channel": len(channel), "black": black}
    return answer, channel if same else image.data + channel if channel else image.data
