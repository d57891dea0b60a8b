"""The page that a finished run is looked at with: one file, no network, no scripts.

``collect`` gathers what it shows as plain data, ``figures`` draws, ``page`` puts it together and
``write`` keeps the file up to date.
"""
