"""D2.26: the steps between, line by line as printed, each evaluated as numbers against autodiff.

A Jacobian J stands as a matrix with [j, i] = ∂z_j/∂x_i; `other` is 1 off its diagonal and 0 on it, so that a sum over
j ≠ i is a product with it. Lines that only define a symbol, with the derivative still to be taken, are left out.
"""

from collections.abc import Iterator
from typing import NamedTuple

from refgrad.claims._ledger import Case, Check, Claim, deferred
from refgrad.claims.d2._systems import values

SOFTMAX, LOG_SOFTMAX, NORM, GELU = "Softmax", "Log-softmax Gradients", "LayerNorm", "GELU"


class PrintedStep(NamedTuple):
    """One printed line: its section, what it is, the name of its truth, the line; where it is wrong, the right one."""

    place: str
    says: str
    truth: str
    printed: str
    corrected: str = ""


STEPS = (
    PrintedStep(SOFTMAX, "∂z_i/∂x_i by the quotient rule", "self", "(e * S - e * e) / S ** 2"),
    PrintedStep(SOFTMAX, "∂z_i/∂x_i, in two fractions", "self", "e / S - e ** 2 / S ** 2"),
    PrintedStep(SOFTMAX, "∂z_i/∂x_i = z_i − z_i²", "self", "z - z ** 2"),
    PrintedStep(SOFTMAX, "∂z_j/∂x_i by the quotient rule", "cross", "other * (0 * S - outer(e, e)) / S ** 2"),
    PrintedStep(SOFTMAX, "∂z_j/∂x_i as a product of fractions", "cross", "-other * outer(e / S, e / S)"),
    PrintedStep(SOFTMAX, "∂z_j/∂x_i = −z_j z_i", "cross", "-other * outer(z, z)"),
    PrintedStep(SOFTMAX, "∂L/∂x_i, both put in", "dx", "dz * (z * (1 - z)) + dz @ (other * -outer(z, z))"),
    PrintedStep(SOFTMAX, "∂L/∂x_i, multiplied out", "dx", "dz * z - dz * z ** 2 - dz @ (other * outer(z, z))"),
    PrintedStep(SOFTMAX, "∂L/∂x_i, z_i taken out of the sum", "dx", "dz * z - z * (dz * z + (dz * z) @ other)"),
    PrintedStep(SOFTMAX, "∂L/∂x_i, one sum over all j", "dx", "z * (dz - sum(dz * z))"),
    PrintedStep(LOG_SOFTMAX, "∂p_i/∂z_i = 1/z_i", "dp_dz", "1 / z"),
    PrintedStep(LOG_SOFTMAX, "∂L/∂x_i by the chain rule", "dx", "dp * dp_dz * self + (dp * dp_dz) @ cross"),
    PrintedStep(
        LOG_SOFTMAX,
        "∂L/∂x_i, softmax's derivatives put in",
        "dx",
        "dp * (1 / z) * z * (1 - z) + (dp * (1 / z)) @ (other * -outer(z, z))",
    ),
    PrintedStep(LOG_SOFTMAX, "∂L/∂x_i, z_j cancelled", "dx", "dp * (1 - z) - z * (dp @ other)"),
    PrintedStep(LOG_SOFTMAX, "∂L/∂x_i, one sum over all j", "dx", "dp - z * sum(dp)"),
    PrintedStep(LOG_SOFTMAX, "∂L/∂x_i with e^(p_i) for z_i", "dx", "dp - exp(p) * sum(dp)"),
    PrintedStep(NORM, "∂L/∂x̂_i = ∂L/∂y_i γ_i", "dx_hat", "dy * gamma"),
    PrintedStep(NORM, "∂L/∂γ_i of one row", "dgamma", "dy * x_hat"),
    PrintedStep(NORM, "∂L/∂β_i of one row", "dbeta", "dy"),
    PrintedStep(
        NORM,
        "∂x̂_i/∂x_i by the quotient rule",
        "self",
        "((1 - dmu) * sqrt(var + eps) - (x - mu) * (1 / (2 * sqrt(var + eps))) * dvar) / sqrt(var + eps) ** 2",
    ),
    PrintedStep(
        NORM,
        "∂x̂_i/∂x_i, the root taken out",
        "self",
        "1 / sqrt(var + eps) * (1 - dmu - (x - mu) / (2 * (var + eps)) * dvar)",
    ),
    PrintedStep(
        NORM,
        "∂x̂_i/∂x_i with x̂_i",
        "self",
        "1 / sqrt(var + eps) * (1 - dmu - x_hat / (2 * sqrt(var + eps)) * dvar)",
    ),
    PrintedStep(
        NORM,
        "∂x̂_j/∂x_i by the quotient rule",
        "cross",
        "other * (-dmu * sqrt(var + eps) - outer((x - mu) * (1 / (2 * sqrt(var + eps))), dvar)) / sqrt(var + eps) ** 2",
    ),
    PrintedStep(
        NORM,
        "∂x̂_j/∂x_i, the root taken out",
        "cross",
        "other * (1 / sqrt(var + eps)) * (-dmu - outer((x - mu) / (2 * (var + eps)), dvar))",
    ),
    PrintedStep(
        NORM,
        "∂x̂_j/∂x_i with x̂_j",
        "cross",
        "other * (1 / sqrt(var + eps)) * (-dmu - outer(x_hat / (2 * sqrt(var + eps)), dvar))",
    ),
    PrintedStep(NORM, "∂μ/∂x_i = 1/N", "dmu", "ones(N) / N"),
    PrintedStep(
        NORM,
        "∂σ²/∂x_i, third line: the terms j ≠ i get ∂μ/∂x_i, without the minus of −∂μ/∂x_i",
        "dvar",
        "1 / N * (2 * (1 - dmu) * (x - mu) + 2 * (dmu * ((x - mu) @ other)))",
        "1 / N * (2 * (1 - dmu) * (x - mu) + 2 * (-dmu * ((x - mu) @ other)))",
    ),
    PrintedStep(
        NORM,
        "∂σ²/∂x_i, fourth line: ∂μ/∂x_i put in",
        "dvar",
        "2 / N * ((1 - 1 / N) * (x - mu) + (-1 / N * (x - mu)) @ other)",
    ),
    PrintedStep(
        NORM,
        "∂σ²/∂x_i, fifth line: Σ_j x_j − μ without parentheses",
        "dvar",
        "2 / N * (x - mu - 1 / N * sum(x) - mu)",
        "2 / N * (x - mu - 1 / N * sum(x - mu))",
    ),
    PrintedStep(NORM, "∂σ²/∂x_i = 2(x_i − μ)/N", "dvar", "2 * (x - mu) / N"),
    PrintedStep(NORM, "∂x̂_i/∂x_i, the diagonal", "self", "1 / sqrt(var + eps) * (1 - 1 / N - x_hat ** 2 / N)"),
    PrintedStep(
        NORM,
        "∂x̂_j/∂x_i, off the diagonal",
        "cross",
        "other * (1 / sqrt(var + eps)) * (-1 / N - outer(x_hat, x_hat) / N)",
    ),
    PrintedStep(
        NORM,
        "putting it all together, first line",
        "dx",
        "dx_hat * (1 / sqrt(var + eps) * (1 - 1 / N - x_hat ** 2 / N))"
        " + dx_hat @ (other * (1 / sqrt(var + eps) * (-1 / N - outer(x_hat, x_hat) / N)))",
    ),
    PrintedStep(
        NORM,
        "putting it all together, second line: + before the sum over j ≠ i of (1/N) ∂L/∂x̂_j",
        "dx",
        "1 / sqrt(var + eps) * (dx_hat - 1 / N * dx_hat - x_hat ** 2 / N * dx_hat"
        " + dx_hat @ (other * (1 / N - outer(x_hat, x_hat) / N)))",
        "1 / sqrt(var + eps) * (dx_hat - 1 / N * dx_hat - x_hat ** 2 / N * dx_hat"
        " + dx_hat @ (other * (-1 / N - outer(x_hat, x_hat) / N)))",
    ),
    PrintedStep(
        NORM,
        "putting it all together, third line",
        "dx",
        "1 / sqrt(var + eps) * (dx_hat - 1 / N * sum(dx_hat) - x_hat / N * sum(dx_hat * x_hat))",
    ),
    PrintedStep(
        NORM,
        "putting it all together, last line",
        "dx",
        "1 / sqrt(var + eps) * (dy * gamma - 1 / N * sum(dy * gamma) - x_hat / N * sum(dy * gamma * x_hat))",
    ),
    PrintedStep(GELU, "∂L/∂x by the product rule", "dx", "dy * (1 / 2 * (1 + tanh(u)) + 1 / 2 * x * dt)"),
    PrintedStep(
        GELU,
        "∂L/∂x with sech²",
        "dx",
        "dy * (1 / 2 * (1 + tanh(u)) + 1 / 2 * a * x * (1 + 3 * b * x ** 2) * (2 / (exp(u) + exp(-u))) ** 2)",
    ),
    PrintedStep(
        GELU,
        "∂L/∂x with 1 − tanh²",
        "dx",
        "dy * (1 / 2 * (1 + tanh(u)) + 1 / 2 * a * x * (1 + 3 * b * x ** 2) * (1 - tanh(u) ** 2))",
    ),
)


@deferred
def _cases(step: PrintedStep) -> Iterator[Case]:
    for found in values(OPERATIONS[step.place]):
        known = {name: value for name, value in found.items() if name != step.truth}
        yield Case(f"N={found['N']}", known, found[step.truth])


OPERATIONS = {SOFTMAX: "softmax", LOG_SOFTMAX: "log_softmax", NORM: "layer_norm", GELU: "gelu"}
FINAL = {SOFTMAX: "D2.12", LOG_SOFTMAX: "D2.13", NORM: "D2.14", GELU: "D2.15"}


def _claim(number: int, step: PrintedStep) -> Claim:
    return Claim(
        f"D2.26.{number}",
        step.place,
        f"A step of the derivation: {step.says}.",
        "autodiff of the plain functions, in float64",
        (Check(step.says, step.printed, _cases(step), corrected=step.corrected),),
        see=(FINAL[step.place],),
        more=f"refgrad verify --op {OPERATIONS[step.place]}",
        ops=(OPERATIONS[step.place],),
    )


CLAIMS = tuple(_claim(number, step) for number, step in enumerate(STEPS, 1))
