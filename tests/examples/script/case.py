from pathlib import Path

import ris_diag
from ris_diag.target import load_case


def my_case() -> ris_diag.Case:
    return load_case(str(Path(__file__).with_name("train.py")))
