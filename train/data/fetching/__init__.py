"""Published data: fetched, verified and prepared in one piece."""
