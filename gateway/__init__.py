"""The server: the front door, the jobs behind it, the choice of a route, and the memory of what was paid."""
