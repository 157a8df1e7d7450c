"""Scalars of exact arithmetic: balls and germs, series in ε → 0+ with ball coefficients, and functions of them.

- `germ` (`germ.py`): series, their order and their sign; a tie is decided by the next term
- `functions`, `analytic`, `elementary`, `special_functions`: functions with one-sided derivatives
- `arithmetic`, `decisions`: operators and choices whose cotangents are expressions; `matrices`: products
- `table`: what primitives stand for, by name
"""
