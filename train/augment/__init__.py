"""What happens to photos in training: per photo on the host, per batch in the compiled step."""
