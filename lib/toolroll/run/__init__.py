"""What surrounds a run: seeds, signals, the log, the manifest."""
