"""The analytic functions by the names of their primitives, special functions among them."""

from fractions import Fraction
from typing import Any

from flint import acb, arb, arb_series, ctx

from refgrad.verify.exact.scalars.analytic import Analytic
from refgrad.verify.exact.scalars.elementary import ATAN, EXP, LOG, LOG1P, angle, raised, sqrt
from refgrad.verify.exact.scalars.functions import terms
from refgrad.verify.exact.scalars.germ import ESSENTIAL, HALF, INFINITY, MINUS, NAN, ONE, ZERO, Germ, Undecided, limit


def _start(s: Any) -> Any:
    """Return a ball, or the first coefficient of a power series."""
    return s if isinstance(s, arb | acb) else s.coeffs()[0]


def _tanh_slope(s: Any) -> Any:
    e = (s * (-2 if _start(s).real >= 0 else 2)).exp()
    return 4 * e / ((1 + e) * (1 + e))


def _logistic_slope(s: Any) -> Any:
    e = (-s if _start(s).real >= 0 else s).exp()
    return e / ((1 + e) * (1 + e))


def _logistic(x: Any) -> Any:
    if x.real >= 0:
        return 1 / (1 + (-x).exp())
    e = x.exp()
    return e / (1 + e)


def _digamma(s: Any) -> Any:
    if isinstance(s, arb | acb):
        return s.digamma()
    with terms(ctx.cap + 1):
        r = type(s)([_start(s), 1]).rgamma()
        return -r.derivative() / r


def _trigamma(s: Any) -> Any:
    if isinstance(s, arb | acb):
        return _polygamma(ONE, s)
    with terms(ctx.cap + 1):
        return _digamma(s).derivative()


def _erf_inv_slope(s: Any) -> Any:
    """Iterate y' = √π/2 exp(y²), which gains a coefficient each time."""
    k, y = arb.pi().sqrt() / 2, _start(s).erfinv()
    if s is not _start(s):
        start, y = y, arb_series([y])
        for _ in range(ctx.cap):
            y = (k * (y * y).exp()).integral() + start
    return k * (y * y).exp()


def _log_gamma(x: Any) -> Any:
    return x.lgamma() if isinstance(x, acb) or x > 0 else -abs(x.rgamma()).log()


def _gamma_density(a: Any, s: Any) -> Any:
    return (s.log() * (a - 1) - s).exp() * a.rgamma()


def _lower_beta(a: Any, b: Any, x: Any) -> Any:
    """Return I_x(a, b), beyond ½ as 1 − I_{1−x}(b, a): flint's own way there fails near integers b."""
    far = x.real > HALF
    return 1 - (1 - x).beta_lower(b, a, regularized=1) if far else x.beta_lower(a, b, regularized=1)


def _beta_density(a: Any, b: Any, s: Any) -> Any:
    return (s.log() * (a - 1) + (1 - s).log() * (b - 1)).exp() * ((a + b).gamma() * a.rgamma() * b.rgamma())


def _gamma_start(a: Any, g: Any) -> Any:
    """Return P(a, g) where g goes to 0: g^a e^−g Σ g^n / Γ(a + n + 1)."""
    power = _exact_power(a, g)
    if isinstance(power, Undecided):
        return power
    rest: Any = Germ({}, ctx.cap * g.lowest)
    for n in reversed(range(ctx.cap)):
        rest = rest * g + (a + (n + 1)).rgamma()
    return power * EXP(-g) * rest


def _beta_start(a: Any, b: Any, g: Any) -> Any:
    """Return I_g(a, b) where g goes to 0 or 1: g^a (1 − g)^b / (a B(a, b)) Σ g^n (a + b)_n / (a + 1)_n at 0."""
    if isinstance(g, Germ) and limit(g) == 1:
        return ONE - _beta_start(b, a, ONE - g)
    power = _exact_power(a, g)
    if isinstance(power, Undecided) or not isinstance(b, arb):
        return power if isinstance(power, Undecided) else Undecided(ESSENTIAL)
    rest: Any = Germ({}, ctx.cap * g.lowest)
    for n in reversed(range(ctx.cap)):
        rest = rest * g * ((a + b + n) / (a + (n + 1))) + ONE
    factor = (a + b).gamma() * (a + 1).rgamma() * b.rgamma()
    return power * EXP(LOG(ONE - g) * b) * rest * factor


def _exact_power(a: Any, g: Any) -> Any:
    """Return g^a for an exact a > 0 where g goes to 0, undecided elsewhere."""
    if not (isinstance(a, arb) and a.is_exact() and a > 0 and isinstance(g, Germ) and limit(g) == 0):
        return Undecided(ESSENTIAL)
    r = a.fmpq()
    return raised(g, Fraction(int(r.numer()), int(r.denom())))


def _polygamma(n: Any, x: Any) -> Any:
    y = acb(x).polygamma(acb(n))
    return y.real if isinstance(x, arb) and isinstance(n, arb) else y


BESSEL_I = [Analytic(lambda x, n=n: x.bessel_i(n)) for n in (0, 1)]
ANALYTIC: dict[str, Analytic] = {
    "exp": EXP,
    "log": LOG,
    "log1p": LOG1P,
    "expm1": Analytic(lambda x: x.expm1(), lambda s: s.exp(), (MINUS, INFINITY), elsewhere=lambda g: EXP(g) - ONE),
    "sin": Analytic(lambda x: x.sin(), lambda s: s.cos()),
    "cos": Analytic(lambda x: x.cos(), lambda s: -s.sin()),
    "tan": Analytic(lambda x: x.tan(), lambda s: 1 + s.tan() * s.tan()),
    "asin": Analytic(
        lambda x: x.asin(), lambda s: (1 - s * s).rsqrt(), elsewhere=lambda g: angle(g, sqrt((ONE - g) * (ONE + g)))
    ),
    "acos": Analytic(
        lambda x: x.acos(), lambda s: -(1 - s * s).rsqrt(), elsewhere=lambda g: angle(sqrt((ONE - g) * (ONE + g)), g)
    ),
    "atan": ATAN,
    "sinh": Analytic(lambda x: x.sinh(), lambda s: (s.exp() + (-s).exp()) / 2, (-INFINITY, INFINITY)),
    "cosh": Analytic(lambda x: x.cosh(), lambda s: (s.exp() - (-s).exp()) / 2, (INFINITY, INFINITY)),
    "tanh": Analytic(lambda x: x.tanh(), _tanh_slope, (MINUS, ONE)),
    "asinh": Analytic(lambda x: x.asinh(), lambda s: (1 + s * s).rsqrt(), (-INFINITY, INFINITY)),
    "acosh": Analytic(
        lambda x: x.acosh(),
        lambda s: (s - 1).rsqrt() * (s + 1).rsqrt(),
        (NAN, INFINITY),
        elsewhere=lambda g: LOG(g + sqrt((g - ONE) * (g + ONE))),
    ),
    "atanh": Analytic(
        lambda x: x.atanh(),
        lambda s: 1 / (1 - s * s),
        elsewhere=lambda g: (LOG(g + ONE) - LOG(ONE - g)) * HALF,
    ),
    "logistic": Analytic(_logistic, _logistic_slope, (ZERO, ONE)),
    "erf": Analytic(lambda x: x.erf(), lambda s: (-s * s).exp() * (2 / arb.pi().sqrt()), (MINUS, ONE)),
    "erfc": Analytic(lambda x: x.erfc(), lambda s: (-s * s).exp() * (-2 / arb.pi().sqrt()), (2 * ONE, ZERO)),
    "erf_inv": Analytic(lambda x: NAN if abs(x) == 1 else x.erfinv(), _erf_inv_slope),
    "lgamma": Analytic(_log_gamma, _digamma, (INFINITY, INFINITY), poles=INFINITY),
    "digamma": Analytic(lambda x: x.digamma(), _trigamma, (NAN, INFINITY)),
    "polygamma": Analytic(_polygamma),
    "zeta": Analytic(lambda s, a: s.zeta(a), edges=((1,), (0,))),
    "igamma": Analytic(
        lambda a, x: x.gamma_lower(a, regularized=1),
        _gamma_density,
        (NAN, ONE),
        edges=((0,), (0,)),
        elsewhere=_gamma_start,
    ),
    "igammac": Analytic(
        lambda a, x: x.gamma_upper(a, regularized=1),
        lambda a, s: -_gamma_density(a, s),
        (NAN, ZERO),
        edges=((0,), (0,)),
        elsewhere=lambda a, g: ONE - _gamma_start(a, g),
    ),
    "igamma_grad_a": Analytic(lambda a, x: ANALYTIC["igamma"].taylor(0, 2, a, x)[1], edges=((0,), (0,))),
    "regularized_incomplete_beta": Analytic(
        _lower_beta, _beta_density, edges=((0,), (0,), (0, 1)), elsewhere=_beta_start
    ),
}
