"""Bad input stops while tracing, before anything is compiled, and the message names value, bound and argument."""

import jax
import jax.numpy as jnp
import pytest

from refgrad import ops

F32, BF16, I32 = jnp.float32, jnp.bfloat16, jnp.int32


def z(*shape, dtype=F32):
    return jnp.zeros(shape, dtype)


BAD = [
    (lambda: ops.linear(z(2, 3), z(4, 5), z(5)), ValueError, r"linear: w has shape \(4, 5\), where i is 4, but i = 3"),
    (lambda: ops.linear(z(2, 3), z(3, 5), z(4)), ValueError, r"linear: bias has shape \(4,\), where o is 4, but o = 5"),
    (lambda: ops.linear(z(2, 3), z(3, 5, dtype=BF16), z(5)), TypeError, "w is bfloat16 but x is float32"),
    (lambda: ops.linear(z(2, 3, dtype=I32), z(3, 5), z(5)), TypeError, "x is int32, but a floating array"),
    (lambda: ops.lm_head(z(2, 3), z(7, 4)), ValueError, r"lm_head: E has shape \(7, 4\)"),
    (lambda: ops.matmul(z(2, 3), z(4, 5)), ValueError, r"matmul: w has shape \(4, 5\), where i is 4, but i = 3"),
    (lambda: ops.mean_square(z(2, dtype=I32)), TypeError, "mean_square: y is int32"),
    (lambda: ops.mean_square(z(0, 3)), ValueError, r"y has shape \(0, 3\), but a mean needs one entry"),
    (lambda: ops.query_key(z(2, 3, 4), z(2, 5, 4)), ValueError, "query_key: k .* s is 5, but s = 3"),
    (lambda: ops.attn_value(z(2, 3, 4), z(2, 3, 5)), ValueError, "attn_value: p"),
    (lambda: ops.attention_scaling(z(2), 0), ValueError, "d is 0, but the head's width is at least 1"),
    (lambda: ops.causal_softmax(z(2, 3, 4)), ValueError, "causal_softmax: x .* s is 4, but s = 3"),
    (lambda: ops.softmax(z(2, dtype=I32)), TypeError, "softmax: x is int32"),
    (lambda: ops.log_softmax(z()), ValueError, r"log_softmax: x has shape \(\)"),
    (lambda: ops.layer_norm(z(2, 3), z(4), z(3), 1e-5), ValueError, r"layer_norm: gamma has shape \(4,\)"),
    (lambda: ops.layer_norm(z(2, 3), z(3), z(3), 0.0), ValueError, r"eps is 0\.0, but must be above 0"),
    (lambda: ops.gelu(z(2, dtype=jnp.bool_)), TypeError, "gelu: x is bool"),
    (lambda: ops.relu(z(2, dtype=I32)), TypeError, "relu: x is int32, but a floating array"),
    (lambda: ops.leaky_relu(z(2, dtype=I32), 0.1), TypeError, "leaky_relu: x is int32"),
    (lambda: ops.sigmoid(z(2, dtype=I32)), TypeError, "sigmoid: x is int32"),
    (lambda: ops.tanh(z(2, dtype=I32)), TypeError, "tanh: x is int32"),
    (lambda: ops.elu(z(2, dtype=I32), 1.0), TypeError, "elu: x is int32"),
    (lambda: ops.silu(z(2, dtype=I32)), TypeError, "silu: x is int32"),
    (lambda: ops.gelu_erf(z(2, dtype=I32)), TypeError, "gelu_erf: x is int32"),
    (lambda: ops.dense(z(2, 3), z(3, 5), z(3)), ValueError, r"dense: w has shape \(3, 5\), where i is 5, but i = 3"),
    (lambda: ops.squared_error_sum(z(2, 3), z(3, 2)), ValueError, r"squared_error_sum: t has shape \(3, 2\)"),
    (
        lambda: ops.squared_error_mean(z(0, 3), z(0, 3)),
        ValueError,
        r"mean: y has shape \(0, 3\), but a mean needs one entry",
    ),
    (lambda: ops.l2_penalty(z(2, 3), -0.1), ValueError, r"strength is -0\.1, but must be 0 at least"),
    (lambda: ops.binary_cross_entropy(z(2), z(2)), TypeError, "y is float32, but ids are integers"),
    (lambda: ops.binary_cross_entropy(z(0), z(0, dtype=I32)), ValueError, r"p has shape \(0,\), but a mean"),
    (lambda: ops.binary_cross_entropy_with_logits(z(2), z(3, dtype=I32)), ValueError, r"y has shape \(3,\)"),
    (
        lambda: ops.binary_cross_entropy_with_logits(z(0), z(0, dtype=I32)),
        ValueError,
        r"z has shape \(0,\), but a mean",
    ),
    (lambda: ops.hinge(z(2, 3), z(3, dtype=I32), 1.0), ValueError, "hinge: x has shape"),
    (lambda: ops.hinge(z(0, 3), z(0, dtype=I32), 1.0), ValueError, r"targets has shape \(0,\), but a mean needs one"),
    (lambda: ops.add(z(2), z(3)), ValueError, r"add: y has shape \(3,\)"),
    (lambda: ops.mul(z(2), z(2, dtype=BF16)), TypeError, "mul: y is bfloat16 but x is float32"),
    (lambda: ops.copy(z(2, dtype=I32)), TypeError, "copy: x is int32"),
    (lambda: ops.maximum(z(2), z(3)), ValueError, r"maximum: y has shape \(3,\)"),
    (lambda: ops.residual(z(2, 3), z(2, 4)), ValueError, "residual: f has shape"),
    (lambda: ops.token_embedding(z(4, 3), z(2)), TypeError, "tokens is float32, but ids are integers"),
    (lambda: ops.position_embedding(z(2, 5, 3), z(4, 3)), ValueError, "x has 5 positions, but P has 4 rows"),
    (lambda: ops.nll(z(2, 3), z(3, dtype=I32)), ValueError, "nll: p"),
    (lambda: ops.nll(z(0, 3), z(0, dtype=I32)), ValueError, r"targets has shape \(0,\), but a mean needs one"),
    (lambda: ops.cross_entropy(z(2, 3), z(2)), TypeError, "cross_entropy: targets is float32"),
    (lambda: ops.softmax_cross_entropy(z(0, 3), z(0, dtype=I32)), ValueError, "a mean needs one"),
    (
        lambda: ops.batch_norm(z(3), z(3), z(3), 1e-5),
        ValueError,
        r"x has shape \(3,\), but the statistics need a batch",
    ),
    (lambda: ops.batch_norm(z(0, 3), z(3), z(3), 1e-5), ValueError, r"x has shape \(0, 3\), but the statistics need"),
    (lambda: ops.batch_norm(z(2, 3), z(3), z(3), 0.0), ValueError, r"batch_norm: eps is 0\.0, but must be above 0"),
    (lambda: ops.dropout(z(2), jax.random.key(0), 1.0), ValueError, r"dropout: rate is 1\.0, .* below 1"),
    (lambda: ops.dropout(z(2), jax.random.PRNGKey(0), 0.5), TypeError, r"key is uint32\[2\], but .*wrap_key_data"),
    (lambda: ops.dropout(z(2), jax.random.split(jax.random.key(0)), 0.5), ValueError, r"key has shape \(2,\)"),
    (lambda: ops.dropout(z(2, dtype=I32), jax.random.key(0), 0.5), TypeError, "dropout: x is int32"),
    (lambda: ops.conv2d(z(2, 5, 6, 3), z(2, 2, 4, 1), z(1), "SAME"), ValueError, "conv2d: kernel .* i is 4, but i = 3"),
    (
        lambda: ops.conv2d(z(2, 5, 6, 3), z(2, 2, 3, 1), z(1), "FULL"),
        ValueError,
        "padding is 'FULL', .* 'SAME', 'VALID'",
    ),
    (lambda: ops.conv2d(z(2, 5, 6, 3), z(2, 7, 3, 1), z(1), "VALID"), ValueError, r"\(2, 7\) for an image of \(5, 6\)"),
    (lambda: ops.conv2d(z(2, 5, 6, 3), z(2, 0, 3, 1), z(1), "SAME"), ValueError, "needs a tap at least"),
    (lambda: ops.rnn(z(5, 4), z(3), z(4, 3), z(3, 2), z(3)), ValueError, r"rnn: w_h has shape \(3, 2\), where h is 2"),
    (lambda: ops.rnn(z(0, 4), z(3), z(4, 3), z(3, 3), z(3)), ValueError, r"rnn: x has shape \(0, 4\), but time"),
    (lambda: ops.rnn(z(2, 5, 4), z(7, 3), z(4, 3), z(3, 3), z(3)), ValueError, r"rnn: h_0 has shape \(7, 3\)"),
    (
        lambda: ops.multi_head_attention(z(2, 6), z(6, 18), z(18), z(6, 6), z(6), 4),
        ValueError,
        "n_head is 4, but must divide h = 6",
    ),
    (
        lambda: ops.multi_head_attention(z(2, 6), z(6, 12), z(12), z(6, 6), z(6), 2),
        ValueError,
        "w_qkv has 12 columns, but 3h = 18",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_every_operation_is_tried():
    tried = {name for call, _, _ in BAD for name in call.__code__.co_names}
    assert {name for name in ops.TABLE if not name.startswith("fused.")} <= tried  # those are in test_fused
