"""Evaluation on held-out documents: measures of answers, confidence intervals, significance tests and reports."""
