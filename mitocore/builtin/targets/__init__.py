"""What heads should predict, from labels: one module for each family of targets."""
