"""``python -m extracurricular.cli``."""

from extracurricular.cli import main

main()
