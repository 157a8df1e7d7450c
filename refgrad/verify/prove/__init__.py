"""Rules proven for all real arguments on a branch, at given shapes.

- `prove` (`prove.py`), `Proof`, `ProofVerdict` (`proof.py`): the search for branches, and its outcome
- `question`: both programs run at one point; `testing`: both compared at points, without a symbolic form
- `slight_mutants` (`slight.py`): rules wrong by so little that only a proof sees it
- `branches`: points on other branches; `constants`: constants that were folded before the program was made
- `symbol`, `evaluate`: scalars with a ball and a symbolic form, and a program run on them
- `field`, `polynomials`: the symbolic form, and the decision that it is 0
"""

from refgrad._renamed import old_names
from refgrad.verify.prove.proof import Proof, ProofVerdict
from refgrad.verify.prove.prove import prove
from refgrad.verify.prove.slight import slight_mutants

__all__ = ["Proof", "ProofVerdict", "prove", "slight_mutants"]

__getattr__ = old_names(__name__, Verdict="ProofVerdict")
