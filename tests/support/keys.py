"""API keys of a gateway's environment, as the tests need them: told apart by a word, and as long as keys have to be."""


def api_key(word: str) -> str:
    """The key that a test calls by this word."""
    return f"{word}-0123456789abcdef0123456789abcdef"
