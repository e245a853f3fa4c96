"""The vocabulary: ideas that two methods need."""
