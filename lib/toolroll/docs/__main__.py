"""`python -m toolroll.docs`: write the generated files of the source tree, or check them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from toolroll.docs.tree import generated, installed_tools, stale, write
from toolroll.errors import ToolrollError

_SOURCE_TREE = Path(__file__).resolve().parents[3]


@click.command("toolroll.docs")
@click.option("--check", is_flag=True, help="Write nothing; name each file that is not up to date and exit with 1.")
@click.option("--root", type=click.Path(path_type=Path), default=_SOURCE_TREE, help="Top of the source tree.")
def main(*, check: bool, root: Path) -> None:
    """Write man pages, completions and generated blocks into the source tree."""
    try:
        files = generated(root, installed_tools(root))
        if not check:
            for name in write(root, files):
                click.echo(name)
            return
        wrong = list(stale(root, files))
    except (ToolrollError, OSError) as error:
        click.echo(f"toolroll.docs: {error}", err=True)
        sys.exit(1)
    for name, why in wrong:
        click.echo(f"{name}: {why}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
