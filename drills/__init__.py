"""Drills: a fault is made at random, again and again, and nothing may go wrong.

``python -m drills`` makes all of them, and ``python -m drills kills --count 10 --seed 0`` some
trials of one; see docs/reliability.md. A drill is one module of this package, which has

- ``COUNT``, the number of its trials by default,
- ``drill(dice, count, folder)``, which makes them and returns a :class:`~drills.common.Result`,

and the first line of its docstring says how it goes.
"""
