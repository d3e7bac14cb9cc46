"""Which of a machine's PostgreSQLs the tests run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stack import postgres
from tests.stack.programs import MissingProgram


def install(binaries: Path) -> str:
    binaries.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        (binaries / name).touch(mode=0o755)
    return str(binaries)


@pytest.mark.parametrize(
    ("versions", "has_path", "chosen"),
    [
        (["9", "15", "17"], False, "15/bin"),
        (["14", "15"], True, "15/bin"),
        (["14", "17"], True, "path"),
        (["9", "17", "16"], False, "17/bin"),
        ([], True, "path"),
        ([], False, None),
    ],
)
def test_version_15_goes_before_the_path_and_that_before_the_newest(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    versions: list[str],
    has_path: bool,
    chosen: str | None,
) -> None:
    monkeypatch.setattr(postgres, "DEBIAN", tmp_path)
    for version in versions:
        install(tmp_path / version / "bin")
    monkeypatch.setenv("PATH", install(tmp_path / "path") if has_path else "")
    if chosen is None:
        with pytest.raises(MissingProgram):
            postgres.postgres_binaries()
    else:
        assert postgres.postgres_binaries() == tmp_path / chosen
