"""Trained models as functions of raw arrays."""
