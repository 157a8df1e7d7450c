"""Rules as people write them, right and wrong, as data: a forward, arguments at which all looks well, and backwards.

`FAMILIES` lists them; `RIGHT` and `WRONG` are their specimens in each dtype.
"""

from tests.verify.corpus import indices, programs, rows, scalars, shapes
from tests.verify.corpus.family import Family, Specimen

FAMILIES: list[Family] = [
    *scalars.FAMILIES,
    *rows.FAMILIES,
    *indices.FAMILIES,
    *programs.FAMILIES,
    *shapes.FAMILIES,
]
RIGHT: list[Specimen] = [s for family in FAMILIES for s in family.specimens(family.right)]
WRONG: list[Specimen] = [s for family in FAMILIES for s in family.specimens(family.wrong)]
