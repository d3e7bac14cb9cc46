"""Which networks are believed."""

from __future__ import annotations

import pytest

from pbmon.peers import TrustedPeers
from pbmon.settings import resolve


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("127.0.0.1", True),
        ("127.255.255.255", True),
        ("172.16.0.1", True),
        ("172.32.0.1", False),
        ("192.168.1.1", True),
        ("8.8.8.8", False),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("::ffff:8.8.8.8", False),
        ("2001:db8::1", False),
        ("", True),
        (None, True),
        ("unix:", True),
    ],
)
def test_trusted_peers_by_default(address, trusted):
    peers = TrustedPeers(resolve({}, {})[0].trusted_peers)
    assert peers.trusts(address) is trusted
    assert peers.trusts(address) is trusted  # from the cache as well


def test_no_network_trusts_no_address():
    assert TrustedPeers(()).trusts("127.0.0.1") is False
