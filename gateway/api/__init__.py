"""The front door: the only room, with `app.py`, that knows HTTP."""
