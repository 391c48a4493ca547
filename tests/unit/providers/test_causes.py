"""Why a host gave no answer: from what the clients raise to words, and who we say that we are."""

from __future__ import annotations

import errno
import socket
import ssl
import tomllib

import aiohttp
import httpx
import pytest
from aiohttp.client_reqrep import ConnectionKey

from providers.agent import PAGE, USER_AGENT, VERSION
from providers.causes import UNKNOWN, cause_of
from providers.http import Unanswered
from tests.support.paths import ROOT

KEY = ConnectionKey("inner.example", 443, True, True, None, None, None)


def expired() -> ssl.SSLCertVerificationError:
    """A certificate whose time is over."""
    found = ssl.SSLCertVerificationError(1, "certificate verify failed")
    found.verify_message = "certificate has expired"
    return found


CAUSES = [
    (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "Name or service not known")), "leads nowhere (DNS)"),
    (aiohttp.ClientConnectorCertificateError(KEY, expired()), "not accepted: certificate has expired"),
    (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "WRONG_VERSION_NUMBER")), "over TLS"),
    (aiohttp.ClientConnectorError(KEY, ConnectionRefusedError(errno.ECONNREFUSED, "")), "refused the connection"),
    (aiohttp.ClientConnectorError(KEY, OSError(errno.ECONNREFUSED, "several")), "refused the connection"),
    (aiohttp.ClientConnectorError(KEY, OSError(errno.EHOSTUNREACH, "")), "cannot be reached"),
    (aiohttp.ConnectionTimeoutError(), "take the connection in time"),
    (aiohttp.ServerDisconnectedError(), "ended the connection"),
    (aiohttp.ClientPayloadError(), "broke off"),
    (TimeoutError(), UNKNOWN),
]


@pytest.mark.parametrize(("error", "words"), CAUSES, ids=lambda given: str(type(given).__name__))
def test_what_happened(error: Exception, words: str) -> None:
    """It is found however deep, and the host's name is not among the words, nor what the system says."""
    outer = Unanswered("delivery: no answer (ConnectError)")
    outer.__cause__ = httpx.ConnectError("inner.example") if isinstance(error, OSError) else httpx.ReadError("inner")
    outer.__cause__.__cause__ = error
    found = cause_of(outer)
    assert words in found or (words == UNKNOWN and found == "could not be connected")
    assert "inner" not in found
    assert "Name or service" not in found


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx.ReadTimeout(""), "did not go on with its answer in time"),
        (httpx.ConnectTimeout(""), "did not take the connection in time"),
        (httpx.DecodingError(""), "cannot be unpacked"),
        (Unanswered("nothing is known"), UNKNOWN),
    ],
)
def test_what_has_no_cause(error: Exception, words: str) -> None:
    """The kind of the error alone says something, or nothing does."""
    assert words in cause_of(error)


def test_we_are_of_this_version() -> None:
    """What hosts are told is what the package says, its page too where it has one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    urls = project.get("urls", {})
    assert project["version"] == VERSION
    assert urls.get("Homepage") == PAGE
    assert USER_AGENT.startswith(f"{project['name']}/{VERSION}")
