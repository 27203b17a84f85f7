"""What happens to training photos."""
