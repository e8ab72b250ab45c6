"""`python -m ris_diag`, and the command `ris-diag`."""

import signal


def run() -> None:
    """The command line as a program: Ctrl-C ends it without a traceback, also on its way in."""
    stopping = signal.getsignal(signal.SIGINT)
    quiet = signal.SIG_IGN if stopping is signal.SIG_IGN else signal.SIG_DFL
    signal.signal(signal.SIGINT, quiet)
    from ris_diag.cli import main

    signal.signal(signal.SIGINT, stopping)
    try:
        main(prog_name="ris-diag")
    finally:
        signal.signal(signal.SIGINT, quiet)


if __name__ == "__main__":
    run()
