"""What schemathesis sends as a file: a true picture, and bytes that are none."""

import schemathesis
from hypothesis import strategies

from tests.simulators.common import tiny

schemathesis.openapi.format("binary", strategies.one_of(strategies.just(tiny()), strategies.binary(max_size=64)))
