"""Recipes: their schema, how they are read, and the shipped ones."""
