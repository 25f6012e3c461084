"""How a million recordings become shards: plan, featurise, gather, commit, verify. The only room that knows Beam."""
