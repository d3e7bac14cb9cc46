"""The demo's terminal as an SVG picture for the documentation.

python -m examples.pocketbook.picture docs/images/demo-terminal.svg
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from examples.pocketbook import demo

# rich links fonts of a content network; the reader's own monospace face does as well.
_FONT_LINK = re.compile(r"@font-face\s*\{[^}]*\}\s*")
_FACES = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def main(target: str) -> int:
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=False)
    status = demo.main([], console)
    svg = _FONT_LINK.sub("", console.export_svg(title="make demo"))
    svg = svg.replace("Fira Code, monospace", _FACES)
    Path(target).write_text(svg, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
