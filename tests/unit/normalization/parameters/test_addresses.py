"""What in a text is an address, however it is spelt."""

import pytest

from normalization.parameters.addresses import address_of, addresses_in, is_address
from normalization.values import Value

ADDRESSES = {
    "http://10.0.0.1/a": "http://10.0.0.1/a",
    "  HTTPS://example.com": "https://example.com",
    "ht\ntp:\t//10.0.0.1/": "http://10.0.0.1/",
    "http:\\\\10.0.0.1\\a": "http://10.0.0.1/a",
    "http:10.0.0.1": "http://10.0.0.1",
    "http:/10.0.0.1": "http://10.0.0.1",
    "http:////10.0.0.1": "http://10.0.0.1",
    "//metadata.internal/latest": "https://metadata.internal/latest",
    "\\\\server\\share": "https://server/share",
    "file:/etc/passwd": "file:/etc/passwd",
    "file:///etc/passwd": "file:///etc/passwd",
    "s3:bucket/key": "s3:bucket/key",
    "gs://bucket/key": "gs://bucket/key",
    "ftp://example.com/a": "ftp://example.com/a",
    "strange+scheme://x": "strange+scheme://x",
    "data:image/png;base64,AAAA": "data:image/png;base64,AAAA",
    "data:,x": "data:,x",
    "169.254.169.254/latest": "https://169.254.169.254/latest",
    "127.0.0.1:8080": "https://127.0.0.1:8080",
    "[::1]:8080/a": "https://[::1]:8080/a",
    "localhost:5000/x": "https://localhost:5000/x",
    "\x00\x1fhttp://10.0.0.1": "http://10.0.0.1",
}
TEXTS = (
    "",
    "a cup",
    "style:anime",
    "<lora:more_details:0.5>",
    "DPM++ 3M SDE Karras",
    "16:9",
    "owner/model",
    "either//or",
    "//",
    "data: a chart of sales, by year",
    "1.5",
    "localhosts",
    "http",
)


@pytest.mark.parametrize(("text", "address"), ADDRESSES.items(), ids=map(repr, ADDRESSES))
def test_an_address(text: str, address: str) -> None:
    """It comes out in the one spelling that every parser reads alike, alone and with words behind it."""
    assert address_of(text) == address
    assert is_address(text) == (not any(blank in text.strip() for blank in "\t\n "))
    assert address in addresses_in({"a": [{"b": text}]})
    assert address in addresses_in({text: 1})


@pytest.mark.parametrize("text", TEXTS)
def test_another_text(text: str) -> None:
    """Words, ratios, names of models and samplers are none."""
    assert address_of(text) is None
    assert list(addresses_in(text)) == []


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("see http://10.0.0.1/a, and (https://example.com/b)", ["http://10.0.0.1/a", "https://example.com/b"]),
        ("a=//10.0.0.1/x;b=gs://c/d", ["https://10.0.0.1/x", "gs://c/d"]),
        ('{"url": "http://[::1]/a"}', ["http://[::1]/a"]),
        (["x", 1, None, True, {"deep": {"er": "x\nftp://h/"}}], ["ftp://h/"]),
        ("style:http://10.0.0.1", ["http://10.0.0.1"]),
    ],
)
def test_addresses_among_words(value: Value, found: list[str]) -> None:
    """Lists in a text, JSON in a text, and what is nested."""
    assert sorted(set(addresses_in(value))) == sorted(found)


def test_a_long_text_takes_no_time() -> None:
    """Each character is looked at a few times, not once for every other."""
    for text in ("a" * 1_000_000, "//" * 500_000, ":" * 1_000_000, " " * 1_000_000, "[" * 1_000_000):
        assert len(list(addresses_in(text))) <= 2
