"""API keys: who may call, how often and for how much.

`budgets.py` reserves money before a submit and settles it afterwards.

May import: gateway.database, gateway.settings, gateway.telemetry.
Libraries: limits, redis, sqlalchemy.
"""
