"""Which Ray cluster a run joins, and whether it answers."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import NamedTuple

from distppo.errors import ResourceError

AUTO = "auto"
ANSWER_SECONDS = 5.0
"""How long the head node may take to accept a connection. Ray itself would try for minutes."""
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
TOKEN_FILE = Path(".ray", "auth_token")
TOKEN_ADVICE = "If it wants a token, as what `ray start` starts does, set RAY_AUTH_MODE=token and copy ~/.ray/auth_token from its head node"


class Address(NamedTuple):
    """A running cluster.

    Attributes:
        value: what `ray.init` takes.
        place: where the user gave it, for messages.
    """

    value: str
    place: str


def find_cluster(address: str | None) -> Address | None:
    """Returns the cluster at `address`, or the one that RAY_ADDRESS names; None where one is to be started on this machine.

    Raises:
        ResourceError: nothing answers there.
    """
    named = Address(address, f"--address {address}") if address else Address(os.environ.get("RAY_ADDRESS", ""), "RAY_ADDRESS")
    if named.value in ("", "local"):
        return None
    value = named.value
    if value == AUTO:
        # Here and not above: Ray reads its environment when it is imported, and what follows for other addresses may change it.
        from distppo.runtime.cluster import running_here

        value = running_here(named.place)
    endpoint = re.fullmatch(r"(?:ray://)?(.+):(\d+)", value)
    if endpoint is None:
        raise ResourceError(f"{named.place}: a cluster is named as auto, HOST:PORT (usually 6379) or ray://HOST:PORT (usually 10001)")
    advice = "Is the cluster up (`ray status` on its head node), and this its address?"
    reach(endpoint[1].strip("[]"), int(endpoint[2]), named.place, advice)
    return named


def reach(host: str, port: int, place: str, advice: str) -> None:
    """Returns if something takes connections there, and gets the token ready where that is a cluster of this machine.

    Raises:
        ResourceError: nothing answers; the message ends with the advice.
    """
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as connection:
            on_this_machine = connection.getsockname()[0] == connection.getpeername()[0]
    except (OSError, OverflowError) as error:
        raise ResourceError(f"{place}: nothing answers there ({error}). {advice}") from error
    if on_this_machine and has_token():
        # A cluster that `ray start` has started asks for the token in the user's home directory. Ray presents it by itself where it finds
        # the cluster, not where it is named; on this machine there is nobody else it could be given away to.
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def has_token() -> bool:
    return any(os.environ.get(name) for name in TOKEN_VARIABLES) or (Path.home() / TOKEN_FILE).is_file()
