"""Which TCP peers are believed: what they say of a request comes from this network. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedPeers:
    """Whether a TCP peer's address is within the trusted networks."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)
        self.trusts = lru_cache(maxsize=4096)(self._trusts)

    def _trusts(self, address: str | None) -> bool:
        if not address:
            return True  # a Unix socket: the peer is on this machine
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return True  # no address at all: an in-process client such as a test client
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self._networks)
