# mypy: disable-error-code=import-not-found
import pytest
from case import my_case

import ris_diag


@pytest.fixture(scope="session")
def ris_case() -> ris_diag.Case:
    return my_case()  # type: ignore[no-any-return]
