"""Tensors as the authors' harness saves them: two problems under two batch sizes, and what must be refused."""

import pickle
from pathlib import Path

import torch

FOLDER = Path("outputs/vllm_main/a100_2/org/model")
NAME = "problem_{}_aime24_{}_bs_{}_bfloat16_max_tokens_8.pt"


class Hostile:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("trap"),)


def save(problem, batch_size, tokens):
    """The pair of files of an answer."""
    ids = torch.tensor([[token, 1, 2, 3, 4] for token in tokens])
    logs = torch.log(torch.tensor([[0.5, 0.25, 0.125, 0.0625, 0.03125]] * len(tokens)))
    torch.save(ids, FOLDER / NAME.format(problem, "token_ids", batch_size))
    torch.save(logs, FOLDER / NAME.format(problem, "logprobs", batch_size))


if __name__ == "__main__":
    FOLDER.mkdir(parents=True)
    save(0, 8, [11, 12, 13])
    save(0, 16, [11, 12, 14, 15])
    save(1, 8, [21, 22])
    save(1, 16, [21, 22])
    Path("hostile").mkdir()
    torch.save(Hostile(), Path("hostile") / NAME.format(0, "token_ids", 8))
    Path("hostile", NAME.format(0, "logprobs", 8)).write_bytes(pickle.dumps(Hostile()))
    Path("lone").mkdir()
    torch.save(torch.zeros(2, 5), Path("lone") / NAME.format(0, "logprobs", 8))
