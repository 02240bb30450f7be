"""Statutes and citations: what a text cites, and whether it exists."""
