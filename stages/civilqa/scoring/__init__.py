"""What an answer is worth, whether two systems differ, and the report that says so."""
