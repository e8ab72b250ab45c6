"""Planted faults, each a small change of a healthy case, and the healthy cases themselves."""
