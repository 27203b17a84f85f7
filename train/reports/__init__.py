"""What a run leaves or foretells for people: tables, curves, speeds, memory, and the dry run."""
