"""From receipts to shards: windows with their tokens, in order, each shard with its index and its ledger."""
