"""How many callers and jobs a process can have with the file handles that it has.

A caller is a connection, and may read a file; its job has a connection to a provider, one to where its picture is
delivered, and a file that is written. Whoever is let in must be able to have what is paid for: so neither takes the
other's part.
"""

from __future__ import annotations

import resource

# The database, the logs, the listening socket, the embedded worker, decoders, and some to spare.
_OWN = 56
# For each caller, and the job that goes on for it.
_EACH = 5


def bounded(wanted: int, handles: int) -> int:
    """How many callers, and how many jobs, there may be of those that are wanted."""
    return min(wanted, max(1, (handles - _OWN) // _EACH))


def mine() -> int:
    """How many handles this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft
