"""Addresses in what goes to a provider as the caller wrote it: only those that this server would fetch itself."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.api.parameters import Asked
from gateway.http.errors import invalid
from normalization.parameters.addresses import address_of, addresses_in, is_address
from normalization.parameters.nesting import excerpt
from normalization.parameters.schema import target_of
from providers.http.ssrf import Forbidden, Guard

# Nobody honest sends more, and each is parsed.
_MOST = 64
_LOCAL = frozenset(
    {"localhost", "local", "localdomain", "internal", "intranet", "corp", "home", "lan", "private", "arpa"}
)


def check_addresses(asked: Asked, guard: Guard) -> None:
    """Refuse an address that leads nowhere or into a network, at any depth of a field. Raises ApiError 400.

    Undeclared fields and those of `provider_options` may hold an address anywhere; of a declared parameter that is
    sent as it is, such as a prompt, only one that is nothing else counts: its words are no address.
    """
    # A data URL is its own content and leads nowhere; addresses within it are found by themselves.
    leading = ((name, address) for name, address in _addresses(asked) if address[:5].lower() != "data:")
    for count, (name, address) in enumerate(leading):
        if count >= _MOST:
            message = f"Invalid '{excerpt(name)}': there are more than {_MOST} addresses in this request."
            raise invalid(name, message, "parameter_refused")
        try:
            _check_name(guard.check(address).host)
        except Forbidden as reason:
            message = (
                f"Invalid '{excerpt(name)}': an address in it is not passed on: {reason}. Public https addresses are; "
                "a picture of your own is sent as a file, in a parameter that takes one."
            )
            raise invalid(name, message, "parameter_refused") from None


def _check_name(host: str) -> None:
    """Refuse a name that means something else in every network: here nobody looks at where it leads."""
    labels = host.rstrip(".").lower().split(".")
    if ":" not in host and (len(labels) < 2 or labels[-1] in _LOCAL):
        raise Forbidden(f"{excerpt(host)} is a name of a local network")


def _addresses(asked: Asked) -> Iterator[tuple[str, str]]:
    request, model = asked.request, asked.model
    for fields in (request.extra, *request.provider_options.values()):
        for name, value in fields.items():
            yield from ((name, found) for found in addresses_in({name: value}))
    rules = [(name, rule) for route in model.routes.values() for name, rule in route.rules.items()]
    sent = {name for name, rule in rules if target_of(name, rule) is not None}
    for name in request.params.keys() & sent:
        given = request.params[name]
        if not isinstance(given, str):
            yield from ((name, found) for found in addresses_in(given))
        elif is_address(given) and (address := address_of(given)) is not None:
            yield name, address
