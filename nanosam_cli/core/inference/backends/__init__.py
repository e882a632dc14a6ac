"""One file a runtime. Only these import their runtime library."""
