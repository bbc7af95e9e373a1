"""GEAR: sets of hypotheses that explain observations, scored without labels."""
