"""vLLM's processes end with the one that started them.

An engine runs in processes of its own. Where the one that started them is killed, they would stay, with the memory of
the model, and wait for ever. vLLM calls this plugin (entry point `vllm.general_plugins`) in each of them.
"""

from __future__ import annotations

import os
import threading
import time

_LOOK_INTERVAL_S = 2.0


def end_with_parent() -> None:
    """Start a thread that ends this process, at once, when its parent is another one than now. Harmless when called
    again."""
    if not any(thread.name == end_with_parent.__name__ for thread in threading.enumerate()):
        watch = threading.Thread(target=_watch, args=(os.getppid(),), name=end_with_parent.__name__, daemon=True)
        watch.start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_INTERVAL_S)
    os._exit(1)  # nobody is left to be told, and threads of the engine may hang
