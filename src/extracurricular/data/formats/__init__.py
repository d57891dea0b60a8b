"""Formats of files: archives, tables, pickles, folders of examples."""
