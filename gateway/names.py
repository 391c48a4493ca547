"""Names that the processes of one server tell each other by. Imports nothing, so that every process may start fast."""

EMBEDDED = "DARKROOM_EMBEDDED_WORKER"
"""Environment variable, set by `darkroom serve` for its own processes: the address of the worker that it runs."""

NONE = "none"
"""For an option of `darkroom keys`: take this limit away."""
