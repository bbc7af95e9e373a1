"""DUMP: which distribution of tasks to train on next, and the puzzles it was shown with."""
