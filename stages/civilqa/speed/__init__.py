"""What a machine can do, and how near the work comes to it."""
