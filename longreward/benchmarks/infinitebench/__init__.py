"""∞Bench (InfiniteBench): retrieval, code, mathematics, dialogue and questions about books beyond 100,000 tokens."""
