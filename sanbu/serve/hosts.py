"""Under which names a server may be asked."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

LOCAL = ("localhost", "127.0.0.1", "::1")


class Hosts:
    """The names of a server. local: it listens to this machine only; if not, its addresses and names count too."""

    def __init__(self, local: bool = True, names: Sequence[str] = ()) -> None:
        self.local = local
        own = () if local else (socket.gethostname(), socket.gethostname().partition(".")[0])
        self.names = [name.lower() for name in dict.fromkeys((*LOCAL, "testserver", *own, *names))]

    def allow(self, host: str) -> bool:
        """Whether a request may name this host."""
        return host.lower() in self.names or (not self.local and is_address(host))

    def __str__(self) -> str:
        shown = [name for name in self.names if name != "testserver"]
        return ", ".join(shown if self.local else [*shown, "any IP address"])


def is_address(host: str) -> bool:
    """Whether a host is an IP address, which no foreign page can have as its name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
