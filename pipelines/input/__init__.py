"""What a person gave, as a plan: a folder or a manifest, options, a deterministic list of work items."""
