"""The five image formats, read at the level of their bytes and never decoded."""
