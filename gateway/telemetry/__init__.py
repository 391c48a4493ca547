"""Metrics and logs.

May import: nothing of the project.
Libraries: prometheus_client.
"""
