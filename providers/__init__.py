"""Transports: each adapter knows its provider's wire and nothing of OpenAI, prices, rules or other providers."""
