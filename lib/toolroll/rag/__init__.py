"""Search-using language models: passages, retrieval, trajectories, their parts and their rewards."""
