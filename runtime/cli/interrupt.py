"""Ctrl-C ends a command wherever it arrives, even where a library catches the exception."""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

EXIT_CODE = 130
"""Exit code of a command after Ctrl-C."""

_RESEND_DELAY_S = 0.05
"""Seconds after which an interrupt that Python dropped is sent again."""

_received = False


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes the block raise KeyboardInterrupt after Ctrl-C, even if a library catches it.

    A library may turn KeyboardInterrupt into another exception, or catch it and continue; then the
    block raises it at its end, or at the next `raise_if_interrupted`. A second Ctrl-C ends the
    process at once. This does nothing outside the main thread, and where Ctrl-C is ignored or has
    a handler already, as in the background of a shell.

    Raises:
        KeyboardInterrupt: If Ctrl-C was pressed.
    """
    global _received
    _received = False
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    report_unraisable = sys.unraisablehook

    def raise_again(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            report_unraisable(unraisable)
        elif threading.current_thread() is threading.main_thread():
            # Python drops what a destructor or a callback raises, and would drop it here too.
            signal.signal(signal.SIGINT, _on_sigint)
            resend = threading.Timer(_RESEND_DELAY_S, _interrupt_main)
            resend.daemon = True
            resend.start()

    sys.unraisablehook = raise_again
    signal.signal(signal.SIGINT, _on_sigint)
    try:
        yield
        raise_if_interrupted()
    except Exception as error:
        if _received:
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.unraisablehook = report_unraisable
        if not _received:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def raise_if_interrupted() -> None:
    """Raises KeyboardInterrupt if Ctrl-C was pressed in the current `interruptible` block."""
    if _received:
        raise KeyboardInterrupt


def exit_interrupted(prog: str) -> NoReturn:
    """Prints that the command `prog` was interrupted and exits with `EXIT_CODE`."""
    print(f"{prog}: interrupted", file=sys.stderr)
    if _received:
        # A normal exit would wait for threads. It would also end by the signal, not with the exit
        # code, if a library has run Python source from a string meanwhile.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_CODE)
    sys.exit(EXIT_CODE)


def _interrupt_main() -> None:
    if hasattr(signal, "pthread_kill"):  # Unlike interrupt_main, it ends a waiting system call.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _on_sigint(*_: Any) -> None:
    global _received
    _received = True
    # From now on the default action of the system, which ends the process even in native code.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt
