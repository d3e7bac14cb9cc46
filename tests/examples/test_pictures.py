"""The pictures of the documentation: small, and complete in themselves."""

from __future__ import annotations

import re
import struct

from examples.pocketbook.server import ROOT

IMAGES = ROOT / "docs" / "images"


def test_the_terminals_picture_loads_nothing():
    svg = (IMAGES / "demo-terminal.svg").read_text(encoding="utf-8")
    assert not re.search(r"@font-face|@import|url\((?!#)|<script|href=", svg)
    assert "requests" in svg
    assert len(svg) < 100_000


def test_the_pages_picture_is_small():
    png = (IMAGES / "demo-page.png").read_bytes()
    width, height = struct.unpack(">II", png[16:24])
    assert (width, 1500 < height < 3000) == (1200, True)
    assert len(png) <= 300 * 1024
