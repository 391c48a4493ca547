"""`python -m tests.cluster.local FILE`: a Ray cluster of this process's own, that serves what a config file says.

SIGHUP has it read again; SIGTERM ends it.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import ray
import yaml  # type: ignore[import-untyped]
from ray import serve
from ray.serve.schema import ServeDeploySchema


def main() -> None:
    """Serve, and go when told to."""
    schema = _read()
    # More than there are cores: Ray counts what is asked for, and its own parts take one as well.
    ray.init(num_cpus=4, include_dashboard=False, configure_logging=False, namespace="serve")
    stop, again = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: again.set())
    try:
        serve.start(http_options=schema.http_options.model_dump(), proxy_location=schema.proxy_location)
        client = serve.context._get_global_client()
        client.deploy_apps(schema)
        while not stop.wait(0.2):
            if again.is_set():
                again.clear()
                client.deploy_apps(_read())
    finally:
        serve.shutdown()
        ray.shutdown()


def _read() -> ServeDeploySchema:
    return ServeDeploySchema.model_validate(yaml.safe_load(Path(sys.argv[1]).read_text()))


if __name__ == "__main__":
    main()
