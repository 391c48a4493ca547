"""The parameters of requests: parsed, planned and converted for each route by the table."""
