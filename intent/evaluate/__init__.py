"""Measure how good and how fast a variant is: metrics, benchmark, report. Knows classifiers by their interface only."""
