"""`python -m providers.worker`."""

import sys

from providers.worker.main import run

if __name__ == "__main__":
    sys.exit(run())
