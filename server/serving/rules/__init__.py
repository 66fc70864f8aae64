"""Rules of a request that choose among a user's ranked items, after the merge and before the candidates are cut off."""
