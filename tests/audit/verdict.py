"""What pip-audit's answer means: it ends alike where it found a hole and where it could not ask."""

from __future__ import annotations

import json

CLEAN, HOLES, UNASKED = 0, 1, 2
"""Our exit status. UNASKED is no pass: nobody has looked, or not at everything."""

# What stands in its complaint where the database of holes cannot be reached.
_UNREACHED = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "Max retries", "Could not connect", "timed out")


def verdict(status: int, answer: str, complaint: str) -> tuple[int, list[str]]:
    """Our own exit status, and what to print, from its exit status, standard output and standard error."""
    try:
        found = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        if any(word in complaint for word in _UNREACHED):
            return UNASKED, ["not asked: the database of holes cannot be reached from here"]
        return UNASKED, [f"not asked: it failed ({status}): {complaint.strip()[-500:]}"]
    holes = [
        f"{one['name']} {one['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no version yet'}"
        for one in found
        for hole in one.get("vulns", ())
    ]
    asked = [one for one in found if "skip_reason" not in one]
    if holes:
        return HOLES, holes
    if not asked:
        return UNASKED, ["not asked: the database of holes knows nothing of any package, so this is not it"]
    unasked = [f"not asked: {one['name']} ({one['skip_reason']})" for one in found if "skip_reason" in one]
    return UNASKED if unasked else CLEAN, [f"{len(asked)} packages without a known hole", *unasked]
