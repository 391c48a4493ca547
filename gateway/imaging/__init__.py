"""Image work: a pool of threads, and sandboxed processes that decode untrusted images."""
