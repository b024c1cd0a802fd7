"""Work in a process of its own, so that its memory and threads are free again afterwards."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_own_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the function returns; it and its arguments must be picklable. Raises RuntimeError when it ends without."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(function, args, kwargs, sender))
    process.start()
    sender.close()
    try:
        result: T = receiver.recv()
    except EOFError as error:
        raise RuntimeError(f"{function.__name__} ended without a result; its output is above") from error
    finally:
        process.join()
    return result


def _send(function: Callable[..., Any], args: Any, kwargs: Any, sender: Connection) -> None:
    sender.send(function(*args, **kwargs))
