"""The cluster of these tests, and a retrieval server that takes its time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from slurm import cluster as slurm_cluster
from slurm.retriever import Retriever
from slurm.rollouts import Rollouts


@pytest.fixture(scope="session")
def cluster() -> Iterator[slurm_cluster.Cluster]:
    """A running cluster; tests are skipped where there cannot be one, and fail where it does not come up."""
    reason = slurm_cluster.lacking()
    if reason is not None:
        pytest.skip(reason)
    one = slurm_cluster.Cluster()
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture
def retriever() -> Iterator[Retriever]:
    """A retrieval server."""
    with Retriever() as server:
        yield server


@pytest.fixture(scope="session")
def warned(
    cluster: slurm_cluster.Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Rollouts, str, Retriever]]:
    """An array with a time limit of a minute that is long under way; its minute passes while other tests run."""
    with Retriever() as server:
        rollouts = Rollouts(tmp_path_factory.mktemp("warned"), cluster, 300, server.spec)
        server.pause_s = 0.25
        job = rollouts.submit("--array=0-1", "--time=1", "--signal=B:USR1@30")
        yield rollouts, job, server
