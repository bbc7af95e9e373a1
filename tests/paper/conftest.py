"""What the tests of experiments share: their modules, and a tiny model to run them on."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import ModuleType

import frame
import pytest


@pytest.fixture(scope="module")
def modules(request: pytest.FixtureRequest) -> Iterator[dict[str, ModuleType]]:
    """The test module's MODULES of experiments/, which import each other as scripts do, and set a number of threads."""
    import torch

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(frame.ROOT / "experiments")
        yield {name: importlib.import_module(name) for name in request.module.MODULES}
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny image-text model."""
    import tiny_models

    return tiny_models.write_image_text(tmp_path_factory.mktemp("model") / "tiny", "llava", most=2048)
