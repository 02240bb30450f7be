"""A page to ask the tuned model in a browser: what it shows, how it is laid out, what it refuses, how it is served."""
