"""Ctrl-C and SIGTERM end a command wherever they arrive, even where a library catches them."""

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

_RESEND_DELAY_S = 0.05
"""Seconds after which an interrupt that Python dropped is sent again."""

_DEFAULT_HANDLERS: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}
"""Signal that ends a command -> its handler in a process that has not set one."""

_received: int | None = None


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes the block raise KeyboardInterrupt after Ctrl-C or SIGTERM, whatever catches it inside.

    A library may turn KeyboardInterrupt into another exception, or catch it and continue; then the
    block raises it at its end, or at the next `raise_if_interrupted`. A second signal ends the
    process at once. This does nothing outside the main thread, and for a signal that is ignored or
    has a handler already, as Ctrl-C in the background of a shell.

    Raises:
        KeyboardInterrupt: If one of the signals was received.
    """
    global _received
    _received = None
    in_main = threading.current_thread() is threading.main_thread()
    handled = [
        number
        for number, default in _DEFAULT_HANDLERS.items()
        if in_main and signal.getsignal(number) is default
    ]
    if not handled:
        yield
        return
    report_unraisable = sys.unraisablehook

    def raise_again(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            report_unraisable(unraisable)
        elif threading.current_thread() is threading.main_thread():
            # Python drops what a destructor or a callback raises, and would drop it here too.
            number = signal.SIGINT if _received is None else _received
            signal.signal(number, _on_signal)
            resend = threading.Timer(_RESEND_DELAY_S, _interrupt_main, (number,))
            resend.daemon = True
            resend.start()

    sys.unraisablehook = raise_again
    for number in handled:
        signal.signal(number, _on_signal)
    try:
        yield
        raise_if_interrupted()
    except Exception as error:
        if _received is not None:
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.unraisablehook = report_unraisable
        if _received is None:
            for number in handled:
                signal.signal(number, _DEFAULT_HANDLERS[number])


def raise_if_interrupted() -> None:
    """Raises KeyboardInterrupt after Ctrl-C or SIGTERM in the current `interruptible` block."""
    if _received is not None:
        raise KeyboardInterrupt


def exit_code() -> int:
    """The exit code after a signal, as a shell gives it: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (signal.SIGINT if _received is None else _received)


def exit_interrupted(prog: str) -> NoReturn:
    """Prints that the command `prog` was ended by a signal, and exits with `exit_code`."""
    how = "ended by SIGTERM" if _received == signal.SIGTERM else "interrupted"
    print(f"{prog}: {how}", file=sys.stderr)
    if _received is not None:
        # A normal exit would wait for threads. It would also end by the signal, not with the exit
        # code, if a library has run Python source from a string meanwhile.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code())
    sys.exit(exit_code())


def _interrupt_main(number: int) -> None:
    if hasattr(signal, "pthread_kill"):  # Unlike interrupt_main, it ends a waiting system call.
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        _thread.interrupt_main(signal.Signals(number))


def _on_signal(number: int, _: Any) -> None:
    global _received
    _received = number
    # From now on the default action of the system, which ends the process even in native code.
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt
