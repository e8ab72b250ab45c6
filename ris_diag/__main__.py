"""`python -m ris_diag`."""

from ris_diag.cli import main

if __name__ == "__main__":
    main(prog_name="ris-diag")
