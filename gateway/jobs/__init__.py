"""The work: one job from its request to its pictures."""
