"""Predictions and their figures."""
