"""The pytest face of ris-diag. Importing it imports nothing heavy."""
