"""The pytest face of ris-diag. Importing it imports nothing heavy."""

from pytest_ris.cases import parametrize_with_checks

__all__ = ["parametrize_with_checks"]
