"""Whether an answer is right: mathematics, multiple choice, exact match."""
