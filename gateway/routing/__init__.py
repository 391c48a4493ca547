"""The choice of a route: pure functions over values, with the clock handed in."""
