"""The five picture formats as containers: read and cut apart at the level of their bytes, never decoded."""
