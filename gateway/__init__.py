"""The gateway: HTTP in front, the ledger behind it, and the choice of a route between them.

`app.py` puts the parts together, `state.py` names them, `registry.py` lists the providers.

May import: providers, normalization.
Libraries: any.
"""
