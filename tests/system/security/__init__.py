"""What somebody can do who shouldn't be able to."""
