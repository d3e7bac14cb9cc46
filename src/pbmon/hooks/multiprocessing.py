"""multiprocessing: its forked processes end without atexit, so they flush here; and what ends one.

granian's workers are such, and those of a process pool. A spawned one runs its own atexit.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from pbmon import runtime, signals
from pbmon.hooks.asgi import FLUSH_S
from pbmon.hooks.patches import Hook, Patch

End = Callable[..., None]


def flushing(end: End) -> End:
    """For `_exit_function`, with which a process ends its run; the main process ends with the
    original, which is registered with atexit."""

    @functools.wraps(end)
    def patched(*args: Any, **kwargs: Any) -> None:
        try:
            end(*args, **kwargs)
        finally:
            with signals.guard("flush at the end of a process"):
                if _is_forked():
                    runtime.active.flush(FLUSH_S)

    return patched


def noting_error(bootstrap: Callable[..., Any]) -> Callable[..., Any]:
    """multiprocessing prints what a process raised, and no excepthook hears of it."""

    @functools.wraps(bootstrap)
    def patched(process: Any, *args: Any, **kwargs: Any) -> Any:
        run = process.run

        def running() -> None:
            try:
                run()
            except SystemExit:
                raise
            except BaseException as error:
                with signals.guard("noting what ends a process"):
                    runtime.active.errors.seen(error)
                raise

        process.run = running
        return bootstrap(process, *args, **kwargs)

    return patched


def _is_forked() -> bool:
    multiprocessing = sys.modules["multiprocessing"]
    if multiprocessing.parent_process() is None:
        return False
    # A Process of no particular context has none: it was started in the default way.
    method = getattr(multiprocessing.current_process(), "_start_method", None)
    return bool((method or multiprocessing.get_start_method()) != "spawn")


class MultiprocessingHook(Hook):
    library = "multiprocessing"
    tested = "Python 3.13"
    patches = (
        Patch("multiprocessing.util", "_exit_function", flushing),
        Patch("multiprocessing.process", "BaseProcess._bootstrap", noting_error),
    )
