"""Asking the model: engine, terminal, page, files of questions."""
