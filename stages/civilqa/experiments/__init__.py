"""Comparing runs: outputs at other revisions, and a quiz on the statutes."""
