"""Training: losses, the loop on accelerate, checkpoints, the policy directory."""
