"""Measure how good and how fast a variant is: metrics, gold set, report.

This package knows classifiers only by their interface.
"""
