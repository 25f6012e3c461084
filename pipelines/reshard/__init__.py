"""A corpus made anew from corpora, by byte ranges: other shards, other splits, other tokens, fewer sessions. Nothing is decoded."""
