"""Outgoing HTTP: the client, bodies, downloads, and the guard against requests to internal addresses."""
