"""Questions that chains of lookups answer, and a small transformer that may search for each or rely on what it knows.

A fact says which entity a relation leads to from an entity. A question is an entity and one relation or more, its
answer where they lead. For each lookup the policy writes S or N; after S what a search finds is injected, after N
nothing; then it writes what it concludes, and after the last lookup the answer. A lookup starts from what was concluded
before, right or wrong. Searches go astray now and then and find any entity. Half of the facts are known: only these are
ever shown without a search before training by reward.

B is questions, L the most lookups, P = L + 2 tokens of a question, T = 3 L + 1 of a response, D the width, E entities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from sorting import Block
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """What is true and what is known. Tokens: entities from 0, then S, N, BLANK, ASK, then relations."""

    facts: Tensor  # [E, relations], entities
    known: Tensor  # [E, relations], bool
    habits: Tensor  # [E, relations], how often a demonstration searches for it
    longest: int
    astray: float  #: share of searches that find any entity

    @property
    def entities(self) -> int:
        """E, which is also the token S."""
        return len(self.facts)

    @property
    def search(self) -> int:
        """S: look the fact up."""
        return self.entities

    @property
    def nosearch(self) -> int:
        """N: conclude without a search."""
        return self.entities + 1

    @property
    def blank(self) -> int:
        """What stands where nothing is said."""
        return self.entities + 2

    @property
    def relation(self) -> int:
        """The token of relation 0; ASK, which ends a question, is the one before."""
        return self.entities + 4

    def follow(self, where: Tensor, relations: Tensor) -> Tensor:
        """Where the relations lead, BLANK from what is no entity: [B], [B] -> [B]."""
        there = where < self.entities
        return torch.where(there, self.facts[where.where(there, 0), relations], self.blank)

    def found(self, where: Tensor, relations: Tensor, generator: torch.Generator) -> Tensor:
        """What a search for these finds: [B], [B] -> [B]."""
        true = self.follow(where, relations)
        astray = (torch.rand(where.shape, generator=generator) < self.astray) & (true != self.blank)
        return torch.randint(self.entities, where.shape, generator=generator).where(astray, true)


def world(entities: int, relations: int, longest: int, astray: float, generator: torch.Generator) -> World:
    """Random facts, half of them known; half, whether known or not, searched for in one case of four, half in three."""
    facts = torch.randint(entities, (entities, relations), generator=generator)
    order = torch.randperm(facts.numel(), generator=generator).view_as(facts)
    habits = torch.randint(2, facts.shape, generator=generator) / 2 + 0.25
    return World(facts, order < facts.numel() // 2, habits, longest, astray)


class Questions(NamedTuple):
    """Chains of lookups."""

    starts: Tensor  # [B], entities
    relations: Tensor  # [B, L], only the first `lengths` of a row count
    lengths: Tensor  # [B], lookups

    def prompts(self, where: World) -> Tensor:
        """Tokens of the questions: [B, P]."""
        there = torch.arange(where.longest) < self.lengths[:, None]
        relations = torch.where(there, self.relations + where.relation, where.blank)
        ask = torch.full_like(self.starts, where.relation - 1)
        return torch.cat([self.starts[:, None], relations, ask[:, None]], -1)

    def repeated(self, times: int) -> Questions:
        """Each question `times` times in a row."""
        return Questions(*(part.repeat_interleave(times, 0) for part in self))


def questions(lengths: Tensor, where: World, generator: torch.Generator, *, held_out: bool) -> Questions:
    """Random questions, all held out or none. Those of one lookup never are: they are the facts themselves."""

    def drawn(count: int) -> Tensor:
        starts = torch.randint(where.entities, (count, 1), generator=generator)
        relations = torch.randint(where.facts.shape[1], (count, where.longest), generator=generator)
        return torch.cat([starts, relations], -1)

    chains, place = drawn(len(lengths)), torch.arange(1, where.longest + 2)
    counts = torch.arange(where.longest + 1) <= lengths[:, None]
    while (wrong := (((chains * place * counts).sum(-1) % 7 == 0) & (lengths > 1)) != held_out).any():
        chains[wrong] = drawn(int(wrong.sum()))
    return Questions(chains[:, 0], chains[:, 1:], lengths)


def own_tokens(lengths: Tensor, longest: int) -> Tensor:
    """1 for the tokens of a response that the policy writes, 0 for what is injected and for what follows: [B, T]."""
    place = torch.arange(3 * longest + 1)
    return ((place <= 3 * lengths[:, None]) & (place % 3 != 1)).float()


def respond(asked: Questions, where: World, say: Callable[[int, Tensor], Tensor], generator: torch.Generator) -> Tensor:
    """Responses [B, T]. `say` gives the tokens at a place, from those before; the environment, what searches find."""
    at, last = asked.starts, torch.full_like(asked.starts, where.blank)
    columns: list[Tensor] = []
    for place in range(3 * where.longest + 1):
        lookup, part = divmod(place, 3)
        said = say(place, last)
        if part == 1:
            found = where.found(at, asked.relations[:, lookup], generator)
            said = found.where(columns[-1] == where.search, where.blank)
        said = said.where(place <= 3 * asked.lengths, where.blank)
        at = said if part == 2 else at
        last = said
        columns.append(said)
    return torch.stack(columns, -1)


class Learner(nn.Module):
    """A small causal transformer with learned places, over a question and the response to it."""

    def __init__(self, where: World, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.world = where
        self.tokens = nn.Embedding(where.relation + where.facts.shape[1], width)
        self.places = nn.Embedding(4 * where.longest + 3, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, where.entities + 2)
        for embedding in (self.tokens, self.places):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, ids: Tensor, pasts: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """[B, tokens] -> logits over entities, S and N, and of each block what the next token needs of these."""
        start = pasts[0].shape[-2] if pasts else 0
        x = self.tokens(ids) + self.places(torch.arange(start, start + ids.shape[1]))
        kept = []
        for i, block in enumerate(self.blocks):
            x, past = block(x, pasts[i] if pasts else None)
            kept.append(past)
        return self.head(self.norm(x)), kept

    def response_logits(self, prompts: Tensor, responses: Tensor) -> Tensor:
        """Logits of each token of given responses: [B, P], [B, T] -> [B, T, E + 2]."""
        ids = torch.cat([prompts, responses[:, :-1]], -1)
        return self(ids)[0][:, prompts.shape[1] - 1 :]

    def greedy(self, asked: Questions) -> Tensor:
        """Responses of the most probable tokens, with the same searches astray each time: [B, T]."""
        return self._written(asked, lambda logits: logits.argmax(-1), torch.Generator().manual_seed(0))

    def sampled(self, asked: Questions, generator: torch.Generator) -> Tensor:
        """Responses at temperature 1: [B, T]."""
        return self._written(
            asked, lambda logits: logits.softmax(-1).multinomial(1, generator=generator)[:, 0], generator
        )

    @torch.no_grad()
    def _written(self, asked: Questions, choose: Callable[[Tensor], Tensor], generator: torch.Generator) -> Tensor:
        pasts: list[Tensor] | None = None

        def say(place: int, last: Tensor) -> Tensor:
            nonlocal pasts
            logits, pasts = self(last[:, None] if place else asked.prompts(self.world), pasts)
            return choose(logits[:, -1])

        return respond(asked, self.world, say, generator)

    @torch.no_grad()
    def closed_book(self) -> Tensor:
        """What it concludes of each fact, asked alone and without a search: [E, relations], tokens."""
        where, shape = self.world, self.world.facts.shape
        pairs = torch.cartesian_prod(*map(torch.arange, shape))
        relations = pairs[:, 1:].expand(-1, where.longest)
        prompts = Questions(pairs[:, 0], relations, torch.ones(len(pairs), dtype=torch.long)).prompts(where)
        silent = torch.tensor([where.nosearch, where.blank]).expand(len(pairs), -1)
        return self(torch.cat([prompts, silent], -1))[0][:, -1].argmax(-1).view(shape)
