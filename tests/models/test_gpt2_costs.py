"""The tally: the document's polynomials out of its operations, the exact one against XLA and against the count."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
import sympy

from refgrad import cost
from refgrad.models import composition, gpt2, gpt2_costs
from refgrad.report import model
from refgrad.symbols import V, b, evaluate, s

MODELS = {
    "tied": (gpt2.Config(n_layer=2, n_head=2, n_embd=10, n_positions=8, vocab_size=13), 3, 5),
    "untied": (gpt2.Config(3, 3, 12, 8, 17, tie_word_embeddings=False), 2, 7),
    "one head": (gpt2.Config(n_layer=1, n_head=1, n_embd=6, n_positions=4, vocab_size=11), 5, 3),
    "every position": (gpt2.Config(n_layer=2, n_head=4, n_embd=8, n_positions=6, vocab_size=19), 1, 6),
}


def test_the_documents_lines_come_out_of_its_operations():
    assert sympy.expand(gpt2_costs.document_layer() - gpt2_costs.PRINTED_LAYER) == 0
    assert sympy.expand(gpt2_costs.document_total() - gpt2_costs.PRINTED_TOTAL) == 4 * b * s * V  # what D2.22 lost
    assert "4*V*b*s, which its last line lost" in model.polynomial_text(gpt2.Config())


@pytest.mark.parametrize("tied", [True, False])
def test_named_differences_leave_nothing_over(tied):
    exact = gpt2_costs.PRINTED_TOTAL + sum(gpt2_costs.differences(tied).values())
    assert sympy.expand(exact - gpt2_costs.backward(tied).flops) == 0


@pytest.mark.parametrize("name", MODELS)
def test_equals_xla_to_the_last_flop(name):
    config, batch, sequence = MODELS[name]
    dims = config.dims(batch, sequence)
    params = jax.eval_shape(partial(gpt2.init, config=config), jax.random.key(0))
    ids = jax.ShapeDtypeStruct((batch, sequence), jnp.int32)
    loss = partial(gpt2.loss, config=config)
    for closed, xla in (
        (gpt2_costs.forward(), cost.xla(loss, params, ids, ids)),
        (gpt2_costs.backward(config.tie_word_embeddings), cost.xla_backward(loss, params, ids, ids)),
    ):
        assert xla.flops == evaluate(closed.flops, dims) < 2**24
        assert xla.transcendentals == evaluate(closed.transcendentals, dims)
    assert model.model_pass("backward", config, batch, sequence, scan=False).reconciliation.ok


def test_loop_and_scan_have_one_count_and_xla_two():
    config, batch, sequence = MODELS["tied"]
    loop, scan = (gpt2.abstract_loss(config, batch, sequence, scan=scan) for scan in (False, True))
    counts = [cost.count_backward(*program) for program in (loop, scan)]
    assert counts[0].flops == counts[1].flops
    assert counts[0].transcendental == counts[1].transcendental
    assert cost.xla_backward(*scan).flops < cost.xla_backward(*loop).flops


def test_totals_agree_with_the_traced_programs_at_every_size():
    for name, config in gpt2.SIZES.items():
        assert model.total(name, config).unexplained == 0


@pytest.mark.parametrize("tied", [True, False])
def test_fused_differences_leave_nothing_over(tied):
    exact = gpt2_costs.PRINTED_TOTAL + sum(gpt2_costs.differences(tied, "fused").values())
    assert sympy.expand(exact - gpt2_costs.backward(tied, "fused").flops) == 0


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_fused_equals_xla_to_the_last_flop(name, monkeypatch):
    monkeypatch.setattr(composition, "QUERIES", 2)  # several blocks, the last of them shorter
    monkeypatch.setattr(composition, "ROWS_OF_LOGITS", {"cpu": 6})
    config, batch, sequence = MODELS[name]
    assert model.model_pass("backward", config, batch, sequence, "fused", scan=False).reconciliation.ok
    program = gpt2.abstract_loss(config, batch, sequence, rules="fused")
    made = cost.count(lambda *a: jax.vjp(program[0], *a), *program[1:])
    dims = config.fused_dims(batch, sequence)
    for part, counted in zip(range(2), (made.flops, made.transcendental), strict=True):
        assert counted == evaluate(gpt2_costs.forward("fused")[part] + gpt2_costs.fwd_extra("fused")[part], dims)


@pytest.mark.slow
def test_fused_totals_agree_with_the_traced_programs_at_every_size():
    for name, config in gpt2.SIZES.items():
        total = model.total(name, config, "fused")
        assert total.unexplained == 0 < total.ahead
        assert total.backward + total.ahead < model.total(name, config).backward  # the masked half outweighs the rest


def test_a_planted_flop_is_unexplained(monkeypatch):
    exact = gpt2_costs.backward(True)
    monkeypatch.setattr(gpt2_costs, "backward", lambda tied, rules: exact._replace(flops=exact.flops + 1))
    config, batch, sequence = MODELS["tied"]
    assert not model.model_pass("backward", config, batch, sequence, scan=False).reconciliation.ok
    assert model.total("124M", gpt2.SIZES["124M"]).unexplained == 1
