"""Measure how good a variant is: metrics, gold set, report. Knows classifiers by their interface only."""
