"""Where the files lie that pbmon carries beside its code: dashboards, collector configuration.

A wheel has them under `pbmon/_assets`; a source checkout (an editable install) has them at the
top of the repository, under the same names.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


class AssetsMissing(Exception):
    """The installation has none of the files asked for."""


def directory(name: str) -> Path:
    """The directory of the assets called `name`, such as `grafana/dashboards`."""
    carried = _PACKAGE / "_assets" / name
    # src/pbmon -> the repository. In site-packages this names nothing of ours.
    checkout = _PACKAGE.parents[1] / name
    for place in (carried, checkout):
        if place.is_dir():
            return place
    raise AssetsMissing(
        f"this installation of pbmon has no {name} (looked in {carried} and {checkout}); "
        "install it again"
    )
