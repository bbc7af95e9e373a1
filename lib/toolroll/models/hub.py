"""The hub that models are fetched from: whether it can be reached at all is found out at once, not by trying for long.

huggingface_hub asks again and again, a line on stderr each time, for up to a minute, and only then looks into its
cache.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies


def seek_hub(notify: Callable[[str], None] = lambda _: None) -> None:
    """Before something of the hub is loaded: if its address is not known here, only the cache is looked into.

    Nothing is found out behind a proxy, which has addresses of its own.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or _is_known(constants.ENDPOINT):
        return
    constants.HF_HUB_OFFLINE = True
    notify(f"{constants.ENDPOINT} cannot be reached: models are looked for in the cache alone")


@cache
def _is_known(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname
    if getproxies() or not host:
        return True
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True
