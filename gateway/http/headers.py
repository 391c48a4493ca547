"""What the query and the headers of a call give: nothing that is not known, and nothing twice.

What is dropped in silence is asked for in vain: a filter with a slip in its name would show the whole list, and a dry
run with one would buy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from starlette.datastructures import Headers, QueryParams

from gateway.http.errors import ApiError, invalid
from normalization.parameters.near import near
from normalization.parameters.nesting import excerpt

# Headers with one meaning for a call. Of two, one program believes the first and the next one the last.
_ONCE = {
    "Authorization": None,
    "api-key": None,
    "Content-Type": None,
    "Idempotency-Key": "invalid_idempotency_key",
    "X-Darkroom-Routing": None,
    "X-Stainless-Retry-Count": None,
}
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def check_headers(headers: Headers) -> None:
    """Raise ApiError 400 for a header that says twice what can be said once."""
    for name, code in _ONCE.items():
        if len(headers.getlist(name)) > 1:
            raise invalid(None, f"The header '{name}' came more than once: send it once.", code or "invalid_value")


def check_query(query: QueryParams, known: Collection[str]) -> None:
    """Raise ApiError 400 for a parameter that is not known, or that came more than once."""
    for name in query:
        if name not in known:
            raise ApiError(400, _unknown(name, known), param=excerpt(name, 80), code="unknown_parameter")
        if len(query.getlist(name)) > 1:
            raise invalid(name, f"The query parameter '{name}' came more than once: send it once.")


def flag_of(query: Mapping[str, str], name: str) -> bool:
    """A query parameter that is true or false; false where it was not sent. Raises ApiError 400."""
    text = query.get(name)
    if text is None:
        return False
    found = _FLAGS.get(text.lower())
    if found is None:
        raise invalid(name, f"Invalid '{name}': expected true or false.")
    return found


def _unknown(name: str, known: Collection[str]) -> str:
    told = f"There is no query parameter '{excerpt(name, 80)}' here."
    if not known:
        return f"{told} This call takes none."
    meant = near(name, known)
    return f"{told} Did you mean '{meant}'?" if meant else f"{told} There are: {', '.join(sorted(known))}."
