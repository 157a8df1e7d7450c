"""cuDNN's calls, by the mathematics that they are known to do: XLA counts each as a custom call, −1.

Only products count: what is element-wise inside a fused call is not told by its operands. A causal or windowed mask
lets the library skip blocks; the count is dense, as for any other attention.
"""

from jax.extend.core import JaxprEqn

from refgrad.cost.primitives.rule import Rule, Work
from refgrad.jaxpr.avals import shape_of, size

FORWARD, BACKWARD = 2, 5  # products: QKᵀ, PV; and QKᵀ again, dV = PᵀdO, dP = dO Vᵀ, dQ = dS K, dK = dSᵀQ


def attention(products: int) -> Rule:
    """So many products of 2·B·N·T·S·H FLOPs, with N heads of queries; T queries, S keys of width H."""

    def rule(eqn: JaxprEqn) -> Work:
        keys = shape_of(eqn.invars[1])[2 if eqn.params["layout"] == 1 else 1]  # BNTH; 0 is BTNH
        flops = 2 * size(eqn.invars[0]) * keys * products
        return Work(matmul=flops, about=f"cuDNN's fused attention: its {products} products, dense: {flops:,} FLOPs")

    return rule


def scaled_matmul(eqn: JaxprEqn) -> Work:
    """2·|out|·k: both operands end with the contracted dimension."""
    return Work(matmul=2 * size(eqn.outvars[0]) * shape_of(eqn.invars[0])[-1])


def _both(name: str, rule: Rule) -> dict[str, Rule]:
    return {name: rule, f"{name}_wrapper": rule}


RULES: dict[str, Rule] = {
    **_both("dot_product_attention_fwd", attention(FORWARD)),
    **_both("dot_product_attention_bwd", attention(BACKWARD)),
    **_both("dot_product_attention_fp8_fwd", attention(FORWARD)),
    **_both("dot_product_attention_fp8_bwd", attention(BACKWARD)),
    **_both("scaled_matmul", scaled_matmul),
}
