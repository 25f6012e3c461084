"""A session of the manifest, whole: who hears whom, its streams in step, its windows, labels and ledger."""
