"""Trained models and data looked at: figures, comparisons, surveys."""
