"""Collection: which meters there are, what each one owes, and the reading of it."""
