"""The hub that models are fetched from: whether it can be reached at all is found out at once, not by trying for long.

huggingface_hub asks again and again, a line on stderr each time, for up to a minute, and only then looks into its
cache. A name server that does not answer takes half a minute by itself.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import cache
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies

WAIT_S = 5.0  #: how long the hub may take to be found and to take a connection


def seek_hub(notify: Callable[[str], None] = lambda _: None) -> None:
    """Before something of the hub is loaded: if it takes no connection, only the cache is looked into.

    Nothing is found out behind a proxy, which has connections of its own.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT):
        return
    constants.HF_HUB_OFFLINE = True
    notify(f"{constants.ENDPOINT} cannot be reached: models are looked for in the cache alone")


@cache
def _answers(endpoint: str) -> bool:
    place = urlsplit(endpoint)
    if getproxies() or not place.hostname:
        return True
    address = (place.hostname, place.port or (80 if place.scheme == "http" else 443))
    answered = []

    def connect() -> None:
        try:
            socket.create_connection(address, WAIT_S).close()
        except (OSError, UnicodeError):
            return
        answered.append(True)

    thread = Thread(target=connect, daemon=True)  # nothing ends a lookup, so the process must not wait for it
    thread.start()
    thread.join(WAIT_S)
    return bool(answered)
