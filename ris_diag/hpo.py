"""`python -m ris_diag.hpo`: the same as `ris-diag hpo`."""

import sys

from ris_diag.cli import main

if __name__ == "__main__":
    main(["hpo", *sys.argv[1:]], prog_name="ris-diag")
