"""The field: identities reduce to 0, and what is not one does not."""

import pytest
from flint import arb, ctx, fmpq

from refgrad.verify.prove import elements as module
from refgrad.verify.prove import polynomials
from refgrad.verify.prove.elements import TooLarge
from refgrad.verify.prove.field import Field
from refgrad.verify.prove.polynomials import add, constant, exponent, exponents, generator, multiply, scale


def minus(p, q):
    return add(p, scale(q, fmpq(-1)))


@pytest.fixture
def field():
    with ctx.workprec(128):
        yield Field()


def test_monomials_of_any_exponents():
    m = generator(0, -3) + generator(2, 5) + generator(3, -1)
    assert exponents(m) == ((0, -3), (2, 5), (3, -1))
    assert [exponent(m, k) for k in range(5)] == [-3, 0, 5, -1, 0]
    assert exponents(m - m) == ()


def test_products_and_content():
    x, y = {generator(0): fmpq(1)}, {generator(1): fmpq(1)}
    p = multiply(add(x, y), minus(x, y))
    assert p == minus(multiply(x, x), multiply(y, y))
    c, m, q = polynomials.content(multiply(scale(x, fmpq(6)), add(x, y)))
    assert multiply(scale(q, c), {m: fmpq(1)}) == multiply(scale(x, fmpq(6)), add(x, y)) and m == generator(0)


def test_identities(field):
    x, y = field.free("x", arb(1.25)), field.free("y", arb(-0.5))
    one = constant(fmpq(1))
    e, f = field.exp(x), field.exp(y)
    total = add(e, f)
    cases = {
        "exp of a sum": (field.exp(add(x, y)), multiply(e, f)),
        "a shift cancels": (
            field.quotient(field.exp(minus(x, y)), add(field.exp(minus(x, y)), one)),
            field.quotient(e, total),
        ),
        "probabilities add up": (add(field.quotient(e, total), field.quotient(f, total)), one),
        "log of a product": (field.log(multiply(e, total)), add(x, field.log(total))),
        "a root squared": (field.power(field.root(add(multiply(x, x), one), 2), 2), add(multiply(x, x), one)),
        "√x⁴ = x²": (field.root(field.power(y, 4), 2), multiply(y, y)),
        "sin² + cos²": (add(field.power(field.cosine(x), 2), multiply(*[field.function("sin", arb.sin, x)] * 2)), one),
        "cos is even": (field.cosine(scale(x, fmpq(-1))), field.cosine(x)),
        "1/(1−x) − 1/(1+x)": (
            minus(field.inverse(minus(one, x)), field.inverse(add(one, x))),
            field.quotient(scale(x, fmpq(2)), minus(one, multiply(x, x))),
        ),
        "√8 = 2√2": (field.root(constant(fmpq(8)), 2), scale(field.root(constant(fmpq(2)), 2), fmpq(2))),
    }
    for name, (a, b) in cases.items():
        assert field.is_zero(minus(a, b)), name
        assert not field.is_zero(minus(scale(a, 1 + fmpq(1, 2**60)), b)), name


def test_what_is_not_an_identity(field):
    x = field.free("x", arb(1.25))
    assert not field.is_zero(minus(field.exp(x), field.exp(scale(x, fmpq(2)))))
    assert not field.is_zero(minus(field.root(x, 2), x))
    assert not field.is_zero(constant(fmpq(1, 2**200)))


def test_signs_that_are_not_known_are_not_used(field):
    """At the arguments of the run y < 0, but that is not a comparison of the program: other arguments have y > 0."""
    y, z = field.free("y", arb(-0.5)), field.free("z", arb(-1))
    assert not field.is_zero(add(field.root(multiply(y, y), 2), y))
    product = multiply(y, z)
    assert field.is_zero(minus(field.log(product), add(field.log(y), field.log(z)))) is True
    x = field.free("x", arb(2))
    assert field.is_zero(minus(field.exp(field.log(x)), x))
    assert field.is_zero(minus(field.root(field.power(x, 3), 2), multiply(x, field.root(x, 2))))


def test_a_limit_of_size(field, monkeypatch):
    monkeypatch.setattr(module, "PRODUCTS", 10)
    xs = [field.free("x", arb(1 + k)) for k in range(6)]
    total = xs[0]
    for x in xs[1:]:
        total = add(total, x)
    square = field.product(total, total)
    multiplied = {}
    for x in xs:
        multiplied = add(multiplied, multiply(x, total))
    with pytest.raises(TooLarge):
        field.is_zero(minus(square, multiplied))
