"""Which exceptions are errors, and what they are told apart by."""

from __future__ import annotations

import asyncio
import linecache
import sys
import types

import pytest

from pbmon import errors, signals
from pbmon.errors import fingerprint, is_failure

HERE = __name__


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


def one():
    return raised(KeyError("a@b.example"))


def other():
    return raised(KeyError("a@b.example"))


class Cart:
    def total(self):
        return raised(ValueError("x"))


class Gone(BaseException):
    pass


class ClientDisconnect(Exception):
    pass


class CancelledError(Exception):
    """An application's own, which only has the name."""


# --- which are errors ---


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError(), True), (MemoryError(), True), (RecursionError(), True), (Gone(), True),
        (SystemExit(1), True), (SystemExit("text"), True), (SystemExit(0), False),
        (SystemExit(), False), (KeyboardInterrupt(), False), (GeneratorExit(), False),
        (asyncio.CancelledError(), False), (CancelledError(), True), (ClientDisconnect(), False),
    ],
    ids=repr,
)  # fmt: skip
def test_what_somebody_should_look_at(error, expected):
    assert is_failure(error) is expected


# --- what they are told apart by ---


def test_it_is_the_type_and_the_innermost_function_of_the_application():
    found = fingerprint(one())
    assert found.error_type == "KeyError"
    assert found.place == f"{HERE}:raised"
    assert len(found.key) == 32
    assert fingerprint(one()) == fingerprint(one()) == fingerprint(other())
    assert fingerprint(raised(IndexError())).key != found.key


def test_a_method_is_named_with_its_class():
    try:
        Cart.broken(1)
    except AttributeError as error:
        assert fingerprint(error).place.endswith("test_a_method_is_named_with_its_class")

    class Basket:
        def pay(self):
            raise ValueError

    with pytest.raises(ValueError) as caught:
        Basket().pay()
    name = "pay" if sys.version_info < (3, 11) else "Basket.pay"
    assert fingerprint(caught.value).place.endswith(name)


def test_a_line_that_moves_makes_no_new_error():
    def made(lines):
        namespace = {"__name__": "shop.cart"}
        source = "\n" * lines + "def total():\n    raise KeyError(1)\n"
        exec(compile(source, "/srv/shop/cart.py", "exec"), namespace)
        with pytest.raises(KeyError) as caught:
            namespace["total"]()
        return fingerprint(caught.value)

    assert made(0) == made(400)
    assert made(0).place == "shop.cart:total"


def test_frames_of_libraries_are_passed_over(monkeypatch):
    """Of the standard library, of what is installed, and of what is made from a text."""

    def in_file(filename, name, code):
        namespace = {"__name__": name}
        exec(compile(code, filename, "exec"), namespace)
        return namespace["call"]

    for filename in (
        "/x/site-packages/lib/a.py", "/usr/lib/python3/dist-packages/a.py", "<string>",
        r"C:\x\site-packages\lib\a.py", json_path(),
    ):  # fmt: skip
        library = in_file(filename, "lib", "def call(f):\n    return f()\n")
        fails = in_file(filename, "lib", "def call():\n    raise ValueError\n")
        with pytest.raises(ValueError) as caught:
            library(fails)
        assert fingerprint(caught.value).place.startswith(f"{HERE}:test_frames_of")
        try:
            fails()
        except ValueError as error:
            # Without a frame of the application it is the innermost one.
            assert fingerprint(error.with_traceback(error.__traceback__.tb_next)).place == (
                "lib:call"
            )


def json_path():
    import json

    return json.__file__


def test_without_a_traceback_it_is_the_type_alone():
    assert fingerprint(KeyError("x")).place == ""
    assert fingerprint(KeyError("x")).key != fingerprint(one()).key


def test_a_fault_of_pbmon_alone_is_none():
    with pytest.raises(AttributeError) as caught:
        signals.key(7)
    # The application's frame is in it: it called us wrongly.
    assert fingerprint(caught.value).place.startswith(HERE)
    namespace = {"__name__": "pbmon.x"}
    exec(compile("def call():\n    1 / 0\n", errors.__file__, "exec"), namespace)
    try:
        namespace["call"]()
    except ZeroDivisionError as error:
        assert fingerprint(error).place.startswith(HERE)
        assert fingerprint(error.with_traceback(error.__traceback__.tb_next)) is None


def test_no_line_of_source_is_read(monkeypatch):
    def read(*_):
        raise AssertionError("a file is read")

    for name in ("getline", "getlines", "checkcache", "updatecache"):
        monkeypatch.setattr(linecache, name, read)
    assert fingerprint(one()).place == f"{HERE}:raised"


def test_deep_recursion_has_a_place():
    def fall():
        fall()

    with pytest.raises(RecursionError) as caught:
        fall()
    assert fingerprint(caught.value).place.endswith("fall")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no exception groups")
def test_of_a_group_the_first_failure_in_it_decides():
    group = BaseExceptionGroup  # noqa: F821
    both = raised(group("x", [asyncio.CancelledError(), group("y", [one(), ValueError()])]))
    found = fingerprint(both)
    assert (found.error_type, found.place) == ("BaseExceptionGroup[KeyError]", f"{HERE}:raised")
    assert is_failure(both)
    assert not is_failure(group("x", [asyncio.CancelledError(), KeyboardInterrupt()]))
    bare = raised(ExceptionGroup("x", [ValueError()]))  # noqa: F821
    assert fingerprint(bare).place == f"{HERE}:raised"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no exception groups")
def test_groups_in_groups_have_an_end():
    made = ValueError()
    for _ in range(500):
        made = ExceptionGroup("x", [made])  # noqa: F821
    assert is_failure(made)
    assert fingerprint(made).error_type == "ExceptionGroup[ExceptionGroup]"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no exception groups")
def test_a_group_that_is_twice_in_each_of_many_groups_is_looked_at_once():
    made = asyncio.CancelledError()
    for _ in range(40):  # 2**40 leaves
        made = BaseExceptionGroup("x", [made, made])  # noqa: F821
    assert not is_failure(made)
    assert fingerprint(made).error_type == "BaseExceptionGroup"
    assert is_failure(BaseExceptionGroup("x", [made, ValueError()]))  # noqa: F821


# --- whatever they are ---


class Rude(type):
    @property
    def __module__(cls):
        raise RuntimeError("no")

    def __repr__(cls):
        raise RuntimeError("no")


class Hostile(Exception, metaclass=Rude):
    __slots__ = ()

    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__

    @property
    def __class__(self):
        raise RuntimeError("no")

    @property
    def __traceback__(self):
        raise RuntimeError("no")

    def __getattribute__(self, name):
        raise RuntimeError("no")

    def __setattr__(self, name, value):
        raise RuntimeError("no")

    def __eq__(self, other):
        raise RuntimeError("no")

    __hash__ = None


def test_one_whose_every_attribute_fails_has_a_fingerprint():
    try:
        raise Hostile
    except Exception as error:
        assert is_failure(error)
        found = fingerprint(error)
    assert found.place.startswith(f"{HERE}:test_one_whose_every")
    assert "Hostile" in found.error_type


def test_names_are_one_line_of_bounded_length():
    made = type("Bad\nName\u202e" + "x" * 900, (Exception,), {"__module__": "m"})
    found = fingerprint(raised(made()))
    assert found.error_type.startswith("m.Bad\\nName\\u202ex")
    assert len(found.error_type) == errors.MAX_TYPE
    odd = type("Odd", (Exception,), {"__module__": 7})
    assert fingerprint(raised(odd())).error_type == "7.Odd"


def test_a_script_is_the_same_in_its_processes():
    names = []
    for name in ("__main__", "__mp_main__", 3):
        namespace = {"__name__": name}
        exec(compile("def call():\n    raise KeyError\n", "/srv/run.py", "exec"), namespace)
        with pytest.raises(KeyError) as caught:
            namespace["call"]()
        names.append(fingerprint(caught.value).place)
    assert names == ["__main__:call"] * 3
    assert isinstance(caught.value.__traceback__, types.TracebackType)
