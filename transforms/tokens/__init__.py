"""Members of a window to its tokens: tokenizers, the queues of what waits, the interleaved tick."""
