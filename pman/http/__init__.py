"""HTTP/1.x as values and pure functions: bytes in, messages out. No I/O."""
