"""Why a request got no answer: from what the clients raise to words, and who we say that we are."""

from __future__ import annotations

import errno
import socket
import ssl
import tomllib

import aiohttp
import httpx
import pytest
from aiohttp.client_reqrep import ConnectionKey

from providers.http.client import PAGE, USER_AGENT, VERSION
from providers.http.errors import UNKNOWN, NoAnswer, why
from tests.support.paths import ROOT

KEY = ConnectionKey("inner.example", 443, True, True, None, None, None)


def unverified(message: str) -> ssl.SSLCertVerificationError:
    """What OpenSSL has against a certificate."""
    found = ssl.SSLCertVerificationError(1, "certificate verify failed")
    found.verify_message = message
    return found


EXPIRED = unverified("certificate has expired")
ELSEWHERE = unverified("Hostname mismatch, certificate is not valid for 'inner.example'.")
CAUSES = [
    (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "Name or service not known")), "could not be resolved"),
    (aiohttp.ClientConnectorCertificateError(KEY, EXPIRED), "is not trusted: certificate has expired"),
    (aiohttp.ClientConnectorCertificateError(KEY, ELSEWHERE), "is not trusted: Hostname mismatch"),
    (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "WRONG_VERSION_NUMBER")), "the TLS handshake failed"),
    (aiohttp.ClientConnectorError(KEY, ConnectionRefusedError(errno.ECONNREFUSED, "")), "the connection was refused"),
    (aiohttp.ClientConnectorError(KEY, OSError(errno.ECONNREFUSED, "several")), "the connection was refused"),
    (aiohttp.ClientConnectorError(KEY, OSError(errno.EHOSTUNREACH, "")), "cannot be reached"),
    (aiohttp.ClientConnectorError(KEY, OSError(errno.ENETDOWN, "")), "cannot be reached"),
    (aiohttp.ClientConnectorError(KEY, OSError(errno.ETIMEDOUT, "")), "the connection took too long"),
    (aiohttp.ClientConnectorError(KEY, OSError("several")), "no connection could be made"),
    (aiohttp.ConnectionTimeoutError(), "the connection took too long"),
    (aiohttp.SocketTimeoutError(), "the answer took too long"),
    (aiohttp.ServerDisconnectedError(), "closed without an answer"),
    (aiohttp.ClientPayloadError(), "the answer broke off"),
    (aiohttp.ClientOSError(errno.EPIPE, ""), "no connection could be made"),
    (TimeoutError(), "the answer took too long"),
]


@pytest.mark.parametrize(("error", "words"), CAUSES, ids=lambda given: str(type(given).__name__))
def test_what_happened(error: Exception, words: str) -> None:
    """It is found however deep, and the host's name is not among the words, nor what the system says."""
    outer = NoAnswer("delivery: no answer (ConnectError)")
    outer.__cause__ = httpx.ConnectError("inner.example") if isinstance(error, OSError) else httpx.ReadError("inner")
    outer.__cause__.__cause__ = error
    found = why(outer)
    assert words in found
    assert "inner" not in found
    assert "Name or service" not in found


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx.ReadTimeout(""), "the answer took too long"),
        (httpx.ConnectTimeout(""), "the connection took too long"),
        (httpx.DecodingError(""), "the answer could not be decompressed"),
        (httpx.ConnectError(""), "no connection could be made"),
        (NoAnswer("nothing is known"), UNKNOWN),
    ],
)
def test_what_has_no_cause(error: Exception, words: str) -> None:
    """The kind of the error alone says something, or nothing does."""
    assert words in why(error)


def test_a_payload_that_a_reset_cut_off() -> None:
    """The innermost error is not always the one that says most."""
    error = aiohttp.ClientPayloadError("https://inner.example/?key=secret")
    error.__cause__ = ConnectionResetError()
    assert why(error) == "the answer broke off"


def test_errors_that_hold_each_other() -> None:
    """A chain that leads back to its begin ends all the same."""
    one, other = NoAnswer("nothing"), httpx.ReadError("nothing")
    one.__cause__, other.__cause__ = other, one
    assert why(one) == "the connection broke off"


def test_we_are_of_this_version() -> None:
    """What hosts are told is what the package says, its page too where it has one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    urls = project.get("urls", {})
    assert project["version"] == VERSION
    assert urls.get("Homepage") == PAGE
    assert USER_AGENT.startswith(f"{project['name']}/{VERSION}")
