"""The ledger: every job and every attempt, written before it matters."""
