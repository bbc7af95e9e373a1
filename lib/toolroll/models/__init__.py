"""Language models behind one interface: transformers, vLLM, any OpenAI-compatible server, scripted."""

import os

# A thread of OpenMP that waits for another one spins by default. On a machine that does anything else,
# that can take ten times the CPU of the work itself. Read once, when torch is imported, which is later.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
