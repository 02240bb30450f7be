"""The base model before it is loaded: its profile, files, tokenizer and prompt. Needs no torch."""
