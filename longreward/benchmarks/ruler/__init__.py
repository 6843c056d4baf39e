"""RULER: retrieval, tracing, aggregation and question answering in generated contexts of exact lengths."""
