"""Rows for the tests of repro-report, and what it makes of them."""

from types import SimpleNamespace

from toolroll.numerics.answers import answers_of
from toolroll.numerics.report import rows_of_report
from toolroll.numerics.runs import Runs
from toolroll.tools.repro_report import main

FIELDS = dict.fromkeys(main.contract.reads.__struct_fields__) | {"sample": 0}


def view(**fields):
    """What the command sees of a row."""
    return SimpleNamespace(**FIELDS | fields)


def gathered(rows, *, by=("precision",), ignored=(), whole=False):
    """Runs with these rows in them."""
    runs = Runs(by, ignored, whole=whole)
    for i, row in enumerate(rows, start=1):
        for answer in answers_of(view(**row), "f.jsonl"):
            runs.add(answer, f"f.jsonl:{i}")
    return runs


def report(rows, **settings):
    """The report on these rows."""
    return list(rows_of_report(gathered(rows, **settings)))


def run(batch_size, tokens, *, name="q", **fields):
    """A row: an answer in bf16, one of a batch."""
    config = {"precision": "bf16", "batch_size": batch_size}
    return {"id": name, "config": config, "tokens": tokens, **fields}
