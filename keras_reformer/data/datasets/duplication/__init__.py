"""The duplication task: sequences 0w0w."""
