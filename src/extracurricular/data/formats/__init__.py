"""Readers of file formats: archives, tables, pickles, folders of examples."""
