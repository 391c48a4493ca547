"""The `darkroom` commands, one module each."""
