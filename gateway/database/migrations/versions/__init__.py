"""The migrations, one after another; each is never changed once it is released."""
