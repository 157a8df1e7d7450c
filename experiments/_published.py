"""The published runs whose inputs are complete, each as the program of one of its devices."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from refgrad.cost.collectives import Collective
from refgrad.models import gpt2
from refgrad.ops import operations

BF16, F32 = jnp.bfloat16, jnp.float32
KERNELS = ("attention", "classifier")  # cuDNN's or Pallas' attention; llm.c's loss and its gradient in one pass


class Run(NamedTuple):
    """A published run: its program, and the seconds that a step of it took (or the share of its peak it reached)."""

    name: str
    device: str
    devices: int
    family: str
    seconds: float
    source: str
    program: Callable[[], tuple[Callable[..., Any], tuple[Any, ...]]]
    exchanged: Callable[[], list[Collective]]


def shape(*sizes: int, dtype: Any = BF16) -> jax.ShapeDtypeStruct:
    """An abstract array."""
    return jax.ShapeDtypeStruct(sizes, dtype)


def adamw(shard: tuple[Array, Array, Array], gradient: Array) -> tuple[Array, Array, Array]:
    """One update of a float32 master copy and its moments, in any precision of the gradient."""
    p, m, v = shard
    g = gradient.astype(F32)
    m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
    return p - 1e-4 * (m / (jnp.sqrt(v) + 1e-8) + 0.1 * p), m, v


def sharded_update(shards: Any, gradients: Any, devices: int) -> Any:
    """AdamW on a device's share of every leaf, and the share of the parameters in bfloat16 that the others get."""

    def leaf(gradient: Array, shard: tuple[Array, Array, Array]) -> Any:
        new = adamw(shard, gradient.reshape(-1)[: gradient.size // devices])
        return new, new[0].astype(BF16)

    return jax.tree.map(leaf, gradients, shards)


def abstract_shards(params: Any, devices: int) -> Any:
    """Float32 master copy and two moments of a device's share of each parameter."""
    return jax.tree.map(lambda p: (shape(p.size // devices, dtype=F32),) * 3, params)


@jax.custom_vjp
def classifier(logits: Array, targets: Array) -> Array:
    """The mean loss; its rule makes the gradient in the forward pass, in the logits' place."""
    return _classifier(logits, targets)[0]


def _classifier(logits: Array, targets: Array) -> tuple[Array, Array]:
    with jax.named_scope("classifier"):
        wide = logits.astype(F32)
        p = jax.nn.softmax(wide)
        chosen = jnp.take_along_axis(p, targets[..., None], -1)[..., 0]
        hot = jnp.arange(logits.shape[-1]) == targets[..., None]
        return -jnp.log(chosen).mean(), ((p - hot) / targets.size).astype(logits.dtype)


classifier.defvjp(lambda logits, targets: _classifier(logits, targets), lambda kept, d: (kept * d.astype(BF16), None))


def gpt2_loss(params: Any, tokens: Array, targets: Array, config: gpt2.Config, remat: bool) -> Array:
    """GPT-2 by the project's fused rules, with llm.c's head: all logits at once, one classifier kernel."""
    x = gpt2.embed(params, tokens, config, "fused")
    block = partial(gpt2.block, config=config, rules="fused", recompute=remat)
    x, _ = lax.scan(lambda x, layer: (block(layer, x), None), x, params["h"])
    norm, table = params["ln_f"], params["wte"]["weight"]
    x = operations("fused").layer_norm(x, norm["weight"], norm["bias"], config.layer_norm_epsilon)
    return classifier(jnp.einsum("bsh,vh->bsv", x, table), targets)


def llm_c(
    size: str, batch: int, accumulate: int, remat: bool = False, share: int = 8
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """llm.c's step on one of 8 devices: bfloat16 parameters and gradients, vocabulary padded to 50,304.

    A device updates one of `share` parts of the parameters: 8 for ZeRO-1, 1 for plain data parallelism.
    """
    config = gpt2.Config(**{**vars(gpt2.SIZES[size]), "vocab_size": 50304})
    params = jax.tree.map(lambda p: shape(*p.shape), jax.eval_shape(gpt2.stack, gpt2.shapes(config)))
    ids = shape(accumulate, batch, 1024, dtype=jnp.int32)
    gradients = jax.value_and_grad(partial(gpt2_loss, config=config, remat=remat))

    def step(params: Any, shards: Any, tokens: Array, targets: Array) -> Any:
        if accumulate == 1:
            value, grads = gradients(params, tokens[0], targets[0])
        else:
            zeros = jax.tree.map(jnp.zeros_like, params)
            grads, value = lax.scan(lambda sums, ids: _add(sums, gradients(params, *ids)), zeros, (tokens, targets))
        return sharded_update(shards, grads, share), value

    return step, (params, abstract_shards(params, share), ids, ids)


def _add(sums: Any, found: tuple[Array, Any]) -> tuple[Any, Array]:
    value, grads = found
    return jax.tree.map(jnp.add, sums, grads), value


def parameters(size: str) -> int:
    """Parameters of a GPT-2 whose vocabulary is padded."""
    config = gpt2.Config(**{**vars(gpt2.SIZES[size]), "vocab_size": 50304})
    return sum(p.size for p in jax.tree.leaves(gpt2.shapes(config)))


def data_parallel(size: str) -> list[Collective]:
    """Gradients summed over 8 devices, in bfloat16."""
    return [Collective("all-reduce", ("data",), 8, 2 * parameters(size), 1, "gradients")]


def zero_1(size: str) -> list[Collective]:
    """ZeRO-1 over 8 devices: gradients scattered, parameters gathered, in bfloat16."""
    payload = 2 * parameters(size)
    return [
        Collective("reduce-scatter", ("data",), 8, payload, 1, "gradients"),
        Collective("all-gather", ("data",), 8, payload, 1, "parameters"),
    ]


class Decoder(NamedTuple):
    """A decoder of MaxText's kind: RMS norm, rotary positions left out (no matrix work), gated hidden layer."""

    layers: int
    width: int
    heads: int
    head: int
    hidden: int
    vocabulary: int = 32000

    @property
    def layer_size(self) -> int:
        """Parameters of a layer."""
        return 4 * self.width * self.heads * self.head + 3 * self.width * self.hidden

    @property
    def size(self) -> int:
        """Parameters in all, embedding and head apart."""
        return self.layers * self.layer_size + 2 * self.vocabulary * self.width


def scaled(scale: int) -> Decoder:
    """MaxText's `global_parameter_scale` of its base: 16 layers, 2048 wide, 16 heads of 128, hidden 7168."""
    base, rest = divmod(scale.bit_length() - 1, 3)
    wide, heads = 2 ** (base + (rest > 1)), 2 ** (base + (rest > 0))
    return Decoder(16 * 2**base, 2048 * wide, 16 * heads, 128, 7168 * heads)


def _norm(x: Array, scale: Array) -> Array:
    y = x.astype(F32)
    return (y * lax.rsqrt((y * y).mean(-1, keepdims=True) + 1e-6)).astype(x.dtype) * scale


def _layer(x: Array, layer: dict[str, Array]) -> Array:
    y = _norm(x, layer["norm_1"])
    q, k, v = (jnp.einsum("bsh,hnd->bsnd", y, layer[name]) for name in "qkv")
    with jax.named_scope("attention"):
        o = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    x = x + jnp.einsum("bsnd,ndh->bsh", o, layer["o"])
    y = _norm(x, layer["norm_2"])
    return x + (jax.nn.silu(y @ layer["gate"]) * (y @ layer["up"])) @ layer["down"]


def decoder_step(decoder: Decoder, batch: int, devices: int, policy: Any = None) -> tuple[Any, tuple[Any, ...]]:
    """A step of one of `devices` devices that share parameters and optimiser (fully sharded), `batch` × 2048 tokens.

    The layers' parameters stand gathered, in bfloat16; what gathers them is in `moved`. Blocks are recomputed but for
    what `policy` saves.
    """
    h, n, d, m = decoder.width, decoder.heads, decoder.head, decoder.hidden
    sizes = {
        **dict.fromkeys("qkv", (h, n, d)),
        "o": (n, d, h),
        "gate": (h, m),
        "up": (h, m),
        "down": (m, h),
        "norm_1": (h,),
        "norm_2": (h,),
    }
    layers = {name: shape(decoder.layers, *size) for name, size in sizes.items()}
    params = {"layers": layers, "embedding": shape(decoder.vocabulary, h), "head": shape(h, decoder.vocabulary)}
    ids = shape(batch, 2048, dtype=jnp.int32)
    block = jax.checkpoint(_layer, policy=policy)

    def loss(params: Any, tokens: Array, targets: Array) -> Array:
        x = params["embedding"][tokens]
        x, _ = lax.scan(lambda x, layer: (block(x, layer), None), x, params["layers"])
        logits = (x @ params["head"]).astype(F32)
        chosen = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
        return (jax.nn.logsumexp(logits, -1) - chosen).mean()

    def step(params: Any, shards: Any, tokens: Array, targets: Array) -> Any:
        value, grads = jax.value_and_grad(loss)(params, tokens, targets)
        return sharded_update(shards, grads, devices), value

    return step, (params, abstract_shards(params, devices), ids, ids)


def moved(decoder: Decoder, devices: int, batch: int, tensor: int, gathers: int) -> list[Collective]:
    """Parameters gathered over fsdp in bfloat16, gradients scattered; over tensor, in both passes, the stream gathered
    before each of a layer's two modules and scattered behind it, of all sequences of a tensor group."""
    payload, along = 2 * decoder.size // tensor, ("fsdp",)
    found = [
        Collective("all-gather", along, devices // tensor, payload, gathers, "parameters"),
        Collective("reduce-scatter", along, devices // tensor, payload, 1, "gradients"),
    ]
    if tensor > 1:
        stream = 2 * batch * tensor * 2048 * decoder.width
        times = 4 * decoder.layers
        found += [
            Collective(kind, ("tensor",), tensor, stream, times, "stream") for kind in ("all-gather", "reduce-scatter")
        ]
    return found


def model_flops(decoder: Decoder, tokens: int) -> float:
    """FLOPs of a step by MaxText's convention before July 2025: 6 a parameter and token, and attention in full."""
    matrices = decoder.layers * decoder.layer_size + decoder.vocabulary * decoder.width
    return 6.0 * matrices * tokens + 12.0 * decoder.layers * decoder.heads * decoder.head * 2048 * tokens


def _llm_c(size: str, device: str, batch: int, accumulate: int, seconds: float, script: str) -> Run:
    program = partial(llm_c, size, batch, accumulate)
    return Run(f"llm.c {size}", device, 8, "GPU", seconds, script, program, partial(zero_1, size))


def _maxtext(scale: int, device: str, peak: float, chips: int, batch: int, tensor: int, mfu: float) -> Run:
    decoder = scaled(scale)
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if tensor > 1 else None  # MaxText's "minimal"
    return Run(
        f"MaxText {scale}B",
        device,
        chips,
        "TPU",
        model_flops(decoder, batch * 2048) / (peak * mfu),
        f"maxtext configs/{device.removeprefix('TPU ')}/{scale}b.sh and its README",
        partial(decoder_step, decoder, batch, chips, policy),
        partial(moved, decoder, chips, batch, tensor, 2 if tensor > 1 else 3),
    )


RUNS = (
    _llm_c("124M", "A100", 64, 1, 0.300, "llm.c scripts/run_gpt2_124M.sh"),
    _llm_c("355M", "A100", 64, 1, 0.820, "llm.c scripts/run_gpt2_350M.sh"),
    _llm_c("774M", "A100", 32, 2, 1.7, "llm.c scripts/run_gpt2_774M.sh"),
    _llm_c("124M", "H100", 64, 1, 0.140, "modded-nanogpt records/track_1_short/2024-10-13_llmc"),
    _llm_c("1.5B", "H100", 16, 8, 2.80, "llm.c scripts/run_gpt2_1558M.sh"),
    _maxtext(16, "TPU v5e", 197e12, 256, 6, 1, 0.611),
    _maxtext(32, "TPU v5e", 197e12, 256, 4, 1, 0.669),
    _maxtext(32, "TPU v5p", 459e12, 64, 6, 4, 0.715),
    _maxtext(128, "TPU v5p", 459e12, 128, 1, 8, 0.687),
)
