"""Vision-Zero: who is the spy? Games of pictures and clues, what they are worth, and what to train next."""
