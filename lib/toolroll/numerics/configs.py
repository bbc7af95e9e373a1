"""Configurations as users write them: compared, named and chosen by their fields."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

__all__ = ["Config", "canonical", "fields_of", "from_file_name", "matches", "name_of", "parse", "varying"]

#: A configuration: its fields and their values as text, in the order of the fields' names.
Config = tuple[tuple[str, str], ...]


def fields_of(config: Mapping[str, Any] | str) -> dict[str, str]:
    """The fields of a configuration in their order, those of objects in it with a dot; values as text.

    A text of words `field=value` says the same as the object; any other text is the one field `config`.

    >>> fields_of({"precision": "bf16", "versions": {"torch": "2.13"}, "tp": 2})
    {'precision': 'bf16', 'versions.torch': '2.13', 'tp': '2'}
    >>> fields_of("precision=bf16 tp=2"), fields_of("my first run")
    ({'precision': 'bf16', 'tp': '2'}, {'config': 'my first run'})
    """
    if isinstance(config, str):
        words = config.split()
        return parse(words) if words and all("=" in word[1:] for word in words) else {"config": config}
    fields: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            fields |= {f"{name}.{inner}": text for inner, text in fields_of(value).items()}
        else:
            fields[name] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return fields


def parse(words: Iterable[str]) -> dict[str, str]:
    """Fields from words `field=value`.

    >>> parse(["batch_size=8", "note=a=b"])
    {'batch_size': '8', 'note': 'a=b'}
    """
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def canonical(fields: Mapping[str, str], ignored: Iterable[str] = ()) -> Config:
    """What makes a configuration the same as another: its fields but those `ignored`, with what is within them.

    >>> canonical({"tp": "1", "versions.torch": "2.13"}, ["versions"])
    (('tp', '1'),)
    """
    left = tuple(ignored)
    return tuple(
        sorted(
            (name, value)
            for name, value in fields.items()
            if not any(name == field or name.startswith(f"{field}.") for field in left)
        )
    )


def varying(configs: Iterable[Config]) -> set[str]:
    """The fields in which configurations differ.

    >>> sorted(varying([(("a", "1"), ("b", "2")), (("a", "1"), ("b", "3"), ("c", "4"))]))
    ['b', 'c']
    """
    found = [set(config) for config in configs]
    shared = found[0].intersection(*found[1:]) if found else set()
    return {name for config in found for name, _ in config - shared}


def name_of(config: Config, fields: Iterable[str]) -> str:
    """A configuration in words: its values of `fields`, in their order; `-` where it has none of them.

    A configuration that is a text, and not of the form `field=value`, is its own name.

    >>> name_of((("batch_size", "8"), ("precision", "bf16")), ["precision", "batch_size"])
    'precision=bf16 batch_size=8'
    """
    values = dict(config)
    words = (values[field] if field == "config" else f"{field}={values[field]}" for field in fields if field in values)
    return " ".join(words) or "-"


def matches(config: Config, chosen: Mapping[str, str]) -> bool:
    """Whether a configuration has all the values that are asked for."""
    return chosen.items() <= dict(config).items()


def from_file_name(path: str) -> dict[str, str]:
    """The fields that a file's name gives: the words `field=value` in it, or else the name itself as `file`.

    >>> from_file_name("runs/precision=bf16,batch_size=8.jsonl.gz"), from_file_name("runs/a100.jsonl")
    ({'precision': 'bf16', 'batch_size': '8'}, {'file': 'a100'})
    """
    stem = PurePath(path).name
    for suffix in (".gz", ".zst", ".jsonl", ".json"):
        stem = stem.removesuffix(suffix)
    words = [word for part in stem.split(",") for word in part.split()]
    return parse(words) if words and all("=" in word[1:] for word in words) else {"file": stem}
