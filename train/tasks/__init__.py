"""What can be learned: each task gives the step its loss."""
