"""One session, whole: featurised in a child process into parts and a receipt, and what its ledger counts."""
