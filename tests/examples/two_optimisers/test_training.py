# mypy: disable-error-code="import-not-found,no-untyped-def"
from case import my_case

from pytest_ris import parametrize_with_checks


@parametrize_with_checks([my_case])
def test_training(case, check):
    check(case)
