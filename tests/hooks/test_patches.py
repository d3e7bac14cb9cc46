"""The patch table: once, by identity, and named where a library is not what it was."""

from __future__ import annotations

import logging
import sys
import types
from typing import Any

import pytest

from pbmon import runtime
from pbmon.hooks.patches import Hook, Patch
from tests.hooks.recorder import hooked


def marking(original: Any) -> Any:
    def replacement(*args: Any) -> Any:
        return "patched", original(*args)

    return replacement


def make_library() -> types.ModuleType:
    library = types.ModuleType("pbmon_library")
    exec(
        "def top(): return 'top'\n"
        "class Base:\n"
        "    def inherited(self): return 'inherited'\n"
        "class Own(Base):\n"
        "    def method(self): return 'method'\n"
        "    @staticmethod\n"
        "    def static(): return 'static'\n",
        library.__dict__,
    )
    return library


@pytest.fixture
def library(monkeypatch):
    module = make_library()
    monkeypatch.setitem(sys.modules, "pbmon_library", module)
    return module


def hook(*attributes: str, optional: bool = False) -> type[Hook]:
    class LibraryHook(Hook):
        library = "pbmon_library"
        tested = "1.0"
        patches = tuple(Patch("pbmon_library", a, marking, optional) for a in attributes)

    return LibraryHook


def state() -> runtime.HookState:
    return runtime.active.hooks["pbmon_library"]


def test_patched_and_restored_by_identity(library):
    before = {**vars(library)}, {**vars(library.Own)}, {**vars(library.Base)}
    with hooked(hook("top", "Own.method", "Own.inherited", "Own.static")):
        assert library.top() == ("patched", "top")
        assert library.Own().method() == ("patched", "method")
        assert library.Own().inherited() == ("patched", "inherited")
        assert library.Base().inherited() == "inherited"
        assert library.Own.static() == ("patched", "static")
        assert state().state == "active"
    assert ({**vars(library)}, {**vars(library.Own)}, {**vars(library.Base)}) == before
    assert "pbmon_library" not in runtime.active.hooks


def test_twice_is_a_no_op(library):
    own = hook("top")
    with hooked(own):
        once = library.top
        logging.disable()
        own().instrument(skip_dep_check=True)
        logging.disable(logging.NOTSET)
        assert library.top is once
    assert library.top() == "top"


def test_again_after_it_was_taken_out(library):
    own = hook("top")
    for _ in range(2):
        with hooked(own):
            assert library.top() == ("patched", "top")
        assert library.top() == "top"


def test_a_patch_of_somebody_else_since_then_stays(library):
    with hooked(hook("top")):
        theirs = library.top = lambda: "theirs"
    assert library.top is theirs


def test_two_hooks_are_two_instances(library):
    assert hook("top")() is not hook("top")()


def test_off_leaves_the_library_alone(library):
    with hooked(hook("top"), pbmon_library="off"):
        assert library.top() == "top"
        assert (state().state, state().reason) == ("skipped", "hooks setting says off")


@pytest.mark.filterwarnings("error")
def test_an_attribute_that_is_gone_is_named(library, caplog):
    with caplog.at_level(logging.WARNING), hooked(hook("top", "Gone.method")):
        assert library.top() == ("patched", "top"), "what is there is patched"
        assert state().state == "skipped"
        assert "pbmon_library.Gone.method not found" in state().reason
        assert "tested with 1.0" in state().reason
    assert library.top() == "top"


def test_an_optional_one_need_not_be_there(library, caplog):
    with caplog.at_level(logging.WARNING):
        with hooked(hook("gone", optional=True)):
            assert not hasattr(library, "gone")
            assert "not found" not in state().reason
        assert not hasattr(library, "gone")
    assert caplog.records == []


def test_a_library_that_is_imported_later(tmp_path, monkeypatch):
    (tmp_path / "pbmon_later.py").write_text("def top(): return 'top'\n")
    monkeypatch.syspath_prepend(tmp_path)

    class LaterHook(Hook):
        library = "pbmon_later"
        tested = "1.0"
        patches = (Patch("pbmon_later", "top", marking),)

    with hooked(LaterHook):
        assert "pbmon_later" not in sys.modules
        assert runtime.active.hooks["pbmon_later"].state == "waiting"
        import pbmon_later

        assert pbmon_later.top() == ("patched", "top")
        assert runtime.active.hooks["pbmon_later"].state == "active"
    assert pbmon_later.top() == "top"
    del sys.modules["pbmon_later"]


def test_a_hook_taken_out_before_the_import_does_nothing(tmp_path, monkeypatch):
    (tmp_path / "pbmon_never.py").write_text("def top(): return 'top'\n")
    monkeypatch.syspath_prepend(tmp_path)

    class NeverHook(Hook):
        library = "pbmon_never"
        tested = "1.0"
        patches = (Patch("pbmon_never", "top", marking),)

    with hooked(NeverHook):
        pass
    import pbmon_never

    assert pbmon_never.top() == "top"
    del sys.modules["pbmon_never"]
