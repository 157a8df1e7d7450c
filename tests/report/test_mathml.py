"""Formulas in the derivations' notation → MathML: what is read as what, and what is refused."""

import inspect
import sys
import xml.etree.ElementTree as ET

import pytest
import sympy

from refgrad.ops import TABLE
from refgrad.report import mathml
from refgrad.report.mathml import NotMathematics
from refgrad.report.mathml.prose import blocks, sentence
from refgrad.symbols import b, h, s

OPERATORS = {"mfrac": "frac", "msqrt": "sqrt", "msub": "sub", "msup": "sup", "msubsup": "subsup", "munder": "under"}


def shape(xml):
    """MathML as a short text: mfrac as frac(…, …), rows as their content, spaces left out."""

    def walk(node):
        inner = [text for text in map(walk, node) if text]
        if node.tag in ("mi", "mn", "mo", "mtext"):
            return node.text
        if node.tag in ("math", "mrow"):
            return " ".join(inner)
        if node.tag == "mspace":
            return ""
        return f"{OPERATORS.get(node.tag, node.tag)}({', '.join(inner)})"

    return " ".join(walk(ET.fromstring(f"<mrow>{xml.replace('<wbr>', '')}</mrow>")).split())


READ = {
    "y_id": "sub(y, i d)",
    "dp_ij": "sub(d p, i j)",
    "∂μ/∂x_i = 1/h": "frac(∂ μ, ∂ sub(x, i)) = frac(1, h)",
    "(x − μ) / √(σ² + ε)": "frac(x − μ, sqrt(sup(σ, 2) + ε))",
    "e / Σ_j e_j": "frac(e, under(∑, j) sub(e, j))",
    "2(x_i − μ)/h": "frac(2 ( sub(x, i) − μ ), h)",
    "1/2(x − y)": "frac(1, 2) ( x − y )",
    "e^(x_rv − m_r)": "sup(e, sub(x, r v) − sub(m, r))",
    "d^(−1/2)": "sup(d, − 1 / 2)",
    "wᵀ dz": "sup(w, T) d z",
    "x̂_i²": "subsup(mover(x, ^), i, 2)",
    "ŷ": "mover(y, ^)",
    "p_r,t_r": "sub(p, r , sub(t, r))",
    "K_k−1−u,l−1−v": "sub(K, k − 1 − u , l − 1 − v)",
    "Σ_{j≠i} z_j": "under(∑, j ≠ i) sub(z, j)",
    "½ x (1 + t)": "frac(1, 2) x ( 1 + t )",
    "σ'(z)": "sup(σ, ′) ( z )",
    "|h| < 1": "| h | < 1",
    "(dq | dk | dv)": "( d q ∣ d k ∣ d v )",
    "(1/n) Σ_k y_k²": "frac(1, n) under(∑, k) subsup(y, k, 2)",
    "tanh(z/2)": "tanh ( frac(z, 2) )",
    "11bsh": "11 b s h",
    "causal_softmax(q)": "causal_softmax ( q )",
    "dw_qkv": "sub(d w, qkv)",
    "dbias": "d bias",
    "0 for j > i": "0 for j > i",
    "dv = attn_value's of do": "d v = attn_value's of d o",
}


@pytest.mark.parametrize("text", READ)
def test_a_formula_is_read(text):
    assert shape(mathml.display(text)) == READ[text]


REFUSED = ["(x", "x / ", "x_", "x.y", "a{b", "the rows of the table are added", "", "x²̃"]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_formula_is_refused(text):
    with pytest.raises(NotMathematics):
        mathml.display(text)


def test_a_polynomial_is_read_from_sympy():
    assert shape(mathml.polynomial(8 * b * s * h + 2 * h**2)) == "8 b h s + 2 sup(h, 2)"


def test_kroneckers_delta_is_read():
    a, w = sympy.symbols("a w")
    assert shape(mathml.polynomial(2 * b - sympy.KroneckerDelta(a, w) * w)) == "2 b − w sub(δ, a w)"


def test_what_could_be_markup_is_escaped():
    assert "<script" not in mathml.display("x < y") and "&lt;" in mathml.display("x < y")
    assert "<script>" not in sentence("<script>alert(1)</script> `<b>`")


def test_formulas_in_a_sentence_are_set_and_words_are_not():
    html = sentence("With S = Σ_j e^(x_j), row i of x is a row; `x_i` is code, D2's is text, and GPT-2 too.")
    pieces = [shape(f"<math>{part.partition('</math>')[0]}</math>") for part in html.split("<math>")[1:]]
    assert pieces == ["S", "= under(∑, j) sup(e, sub(x, j))", "i", "x"]
    assert "<code>x_i</code>" in html and "is a row" in html and "D2&#39;s is text, and GPT-2 too." in html


def test_a_docstring_becomes_blocks():
    formulas = "    dx = dy        dw = x dy   for j ≠ i\n    f(x).item()"
    text = f"Name: y = x.\n\nDerivation. So\n\n{formulas}\n\nKept: x. Cost: none."
    found = [(block.kind, block.label) for block in blocks(text)]
    assert found == [
        ("text", ""),
        ("text", "Derivation"),
        ("formula", ""),
        ("formula", ""),
        ("plain", ""),
        ("text", "Kept"),
        ("text", "Cost"),
    ]


def test_the_derivations_are_mathematics():
    """Every displayed line of every operation is set as a formula, save at most one in fifty."""
    lines = {}
    for name, row in TABLE.items():
        text = inspect.getdoc(sys.modules[row.op.fun.__module__]) or ""
        lines[name] = [block for block in blocks(text) if block.kind != "text"]
        assert lines[name], f"{name}'s docstring displays no formula"
        for block in blocks(text):
            ET.fromstring(f"<p>{block.html.replace('<wbr>', '')}</p>")
    plain = [f"{name}: {block.html}" for name, found in lines.items() for block in found if block.kind == "plain"]
    assert len(plain) <= sum(map(len, lines.values())) / 50, plain
