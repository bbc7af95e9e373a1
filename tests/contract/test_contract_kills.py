"""A sample of the campaign of kills: see `contract.campaign`, which `make faults` wages in full."""

from __future__ import annotations

import frame
import pytest
from contract import campaign

LIGHT = [command for command in campaign.subjects() if command.name not in frame.WARM]


@pytest.mark.parametrize("command", LIGHT, ids=str)
def test_killed_at_a_random_moment_and_gone_on(command, tmp_path):
    tally = campaign.Campaign(tmp_path, seed=1).round(command, 0, 2)
    assert not tally.differed
    assert tally.rounds == 1


def test_something_can_be_killed(tmp_path):
    """Or the tests above would say nothing."""
    chosen = [command for command in LIGHT if command.name in ("gear-pairs", "pair-make", "spy-game")]
    tallies = list(campaign.waged(campaign.Campaign(tmp_path, seed=2), chosen, 4, float("inf")))
    assert sum(tally.kills for tally in tallies) == 4
    assert not [told for tally in tallies for told in tally.differed]
