"""Prepares the images for each candidate before a job starts, so that an image that cannot be sent costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gateway.imaging.pool import BadImage, ImagePool
from gateway.routing.selection import Candidate, Choice, Excluded
from normalization.images.prepare import PreparedImage
from normalization.parameters.transparency import images
from normalization.values import Image, ImageRequest, JoinAlpha, Plan, Sending, Step, Value


async def ready(choice: Choice, request: ImageRequest, imaging: ImagePool, owner: str) -> Choice:
    """The candidates with the images prepared for them. A candidate that does not accept them is excluded.

    Raises Busy.
    """
    if all(candidate.plan.sending is None for candidate in choice.candidates):
        return choice
    # Routes with the same requirements share the prepared images.
    made: dict[Sending, Mapping[int, PreparedImage]] = {}
    kept: list[Candidate] = []
    excluded: list[Excluded] = [*choice.excluded]
    for candidate in choice.candidates:
        sending = candidate.plan.sending
        if sending is None:
            kept.append(candidate)
            continue
        try:
            if sending not in made:
                made[sending] = {id(image): await imaging.ready(image, sending, owner) for image in images(request)}
        except BadImage as error:
            reason = f"does not accept the image: {error.message}"
            excluded.append(Excluded(route=candidate.route, reason=reason, param="image"))
        else:
            kept.append(replace(candidate, plan=_with(candidate.plan, made[sending], request.images[0])))
    return Choice(candidates=kept, excluded=excluded)


def _with(plan: Plan, made: Mapping[int, PreparedImage], first: Image) -> Plan:
    """A plan with the prepared images in its payloads, and with the alpha channel to be restored in its results."""
    own = made[id(first)]
    finish: list[Step] = []
    for step in plan.finish:
        if not isinstance(step, JoinAlpha):
            finish.append(step)
        elif own.alpha is not None:  # else no pixel was transparent
            finish.append(JoinAlpha(alpha=own.alpha, black=own.black))
    notes = [*plan.notes, *(note for ready in made.values() for note in ready.notes)]
    if any(ready.alpha is not None for ready in made.values() if ready is not own):
        notes.append("Transparent areas of the additional images were filled with the colours next to them.")
    calls = tuple({name: _replaced(value, made) for name, value in call.items()} for call in plan.calls)
    return replace(plan, calls=calls, finish=tuple(finish), notes=tuple(dict.fromkeys(notes)))


def _replaced(value: Value, made: Mapping[int, PreparedImage]) -> Value:
    if isinstance(value, Image):
        return made[id(value)].image if id(value) in made else value
    if isinstance(value, list):
        return [_replaced(inner, made) for inner in value]
    if isinstance(value, dict):
        return {name: _replaced(inner, made) for name, inner in value.items()}
    return value
