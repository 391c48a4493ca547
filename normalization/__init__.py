"""The table: how each parameter reaches each provider, and what the gateway does itself.

Everything here is pure: frozen values in, frozen values out, no clock, no network, no state. It imports the standard
library, pydantic, Pillow and nothing of ours.
"""
