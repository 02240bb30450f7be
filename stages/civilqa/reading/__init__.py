"""From files as people have them to clean text: tables of any kind, cleaning, personal data."""
