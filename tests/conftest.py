"""Lets tests import the modules that stand beside them (`frame`, `contract.own_tools`), and run side by side."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ["SLURM_CPUS_PER_TASK"] = "1"  # for models opened in this process; `frame.environment` does not hand it on

#: Folders whose modules set up something costly that their tests share.
TOGETHER = {"tools", "models", "paper"}


@pytest.fixture(scope="session", autouse=True)
def temporary_files_go_with_pytests_own(tmp_path_factory):
    """What the commands of tests leave in the folder for temporary files, when they are killed, is cleared some day."""
    os.environ["TMPDIR"] = str(tmp_path_factory.mktemp("tmp"))


@pytest.hookimpl(tryfirst=True)  # before xdist looks for the groups
def pytest_collection_modifyitems(items):
    """With several workers (pytest-xdist): a module whose tests share a fixture, or a cluster, stays on one."""
    for item in items:
        folder = item.path.parent.name
        if folder == "slurm" or folder in TOGETHER:
            group = folder if folder == "slurm" else item.path.name
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(tryfirst=True)  # before fixtures, which may ask for more
def pytest_runtest_setup(item):
    """One thread for torch: tensors of tests are tiny, and threads of several workers wait for each other."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
