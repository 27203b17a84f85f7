"""What a model costs and what it looked at."""
