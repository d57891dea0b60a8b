"""Data sets: raw examples in three splits, with the scales that make network inputs of them."""
