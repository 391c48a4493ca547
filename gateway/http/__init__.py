"""HTTP between bytes and requests: the server, its middleware, authentication, bodies and errors."""
