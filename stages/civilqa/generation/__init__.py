"""Answers from a model: one loop, its cache, and the systems that are asked."""
