"""What people think of the answers: their marks on disk, their agreement, and what becomes of it in the data."""
