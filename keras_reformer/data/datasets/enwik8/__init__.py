"""enwik8: 100,000,000 bytes of Wikipedia."""
