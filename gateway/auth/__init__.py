"""API keys: authentication, limits and budgets.

`budgets.py` reserves money before a submit and settles it afterwards.

May import: gateway.database, gateway.settings, gateway.telemetry.
Libraries: limits, redis, sqlalchemy.
"""
