"""Records, and what is done to many of them: grouping near-duplicates, several processes."""
