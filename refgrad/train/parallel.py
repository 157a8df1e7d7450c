"""Loss and gradients of a GPT-2 on a mesh, every collective written out: what is not here is not moved.

The program of one device, under `jax.shard_map`. With N_d, N_f, N_m devices along data, fsdp and model, it holds b/(N_d
N_f) examples and its share of every matrix (`sharding.py`). For each layer

    forward   W ← all-gather of its share over fsdp; c_attn's rows ⇄ columns by all-to-all over model
              a module's partial sums are all-reduced over model, so that the stream is whole on every device
    backward  W gathered once more; the stream's gradient is all-reduced over model before each norm
              dW is reduce-scattered over fsdp, the share all-reduced over data

A gathered matrix does not live from forward to backward: the layer is a rule of its own, which keeps the residuals of
the derived rules but no parameters. The gather in the backward pass waits for the cotangent, or a compiler would find
the one that the forward made.

Everything but the collectives is the model's own: `gpt2.embed`, `gpt2.block`, `gpt2.head_loss`, with the share of
columns that a device has. Under model > 1 a layer is composed of its operations, of which the second of each module
makes partial sums: each device adds its own part of the bias.

Sums over devices are in the parameters' dtype, whatever the compute dtype is.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from refgrad.jaxpr.avals import varying_axes
from refgrad.models import gpt2
from refgrad.models._composition import attention_by, projections
from refgrad.models._inputs import check_ids, check_params, path_name
from refgrad.ops import operations
from refgrad.ops._numerics import depend_on
from refgrad.ops.multi_head_attention import attend, merge_heads, split_heads
from refgrad.rule_sets import rule_set
from refgrad.train.sharding import batch_spec, check, rule, specs
from refgrad.train.walk import Pieces, cast

Program = Callable[[gpt2.Params, Array, Array], Any]


def loss(
    config: gpt2.Config, mesh: Mesh, *, rules: str = "derived", remat: bool = False, compute_dtype: Any = None
) -> Program:
    """A function (params, tokens (b, s), targets (b, s)) → the mean loss, whole on every device.

    Parameters are global arrays, sharded by `sharding.RULES`, ids by `sharding.batch_sharding`. Layers are a list, or
    stacked and walked by `lax.scan`. The mesh is one of `devices.make`, its axes explicit or auto. `rules`, `remat` and
    `compute_dtype` as in `step.make_step`. Raises ValueError as `sharding.check` and `gpt2.loss` do, before anything
    is compiled.
    """
    operations(rules)
    device = Device(config, rules, remat, compute_dtype, mesh)
    return lambda params, tokens, targets: _mapped(device, device.loss, False, params, tokens, targets)


def value_and_grad(
    config: gpt2.Config, mesh: Mesh, *, rules: str = "derived", remat: bool = False, compute_dtype: Any = None
) -> Program:
    """As `loss`, a function → (the mean loss, its gradients, sharded as the parameters are)."""
    operations(rules)
    device = Device(config, rules, remat, compute_dtype, mesh)
    both = jax.value_and_grad(device.loss)
    return lambda params, tokens, targets: _mapped(device, both, True, params, tokens, targets)


def _mapped(
    device: "Device", program: Program, gradients: bool, params: gpt2.Params, tokens: Array, targets: Array
) -> Any:
    """The program on every device of the mesh."""
    config, mesh = device.config, device.mesh
    check_params(params, gpt2.shapes(config))
    for name, given in (("tokens", tokens), ("targets", targets)):
        check_ids(name, given, config.vocab_size, config.n_positions)
    if tokens.ndim != 2 or targets.shape != tokens.shape:
        raise ValueError(f"tokens {tokens.shape} and targets {targets.shape} must both be (b, s)")
    check(config, mesh.shape, *tokens.shape)
    split, ids, whole = specs(params, mesh), batch_spec(mesh), PartitionSpec()
    out = (whole, split) if gradients else whole
    return jax.shard_map(program, mesh=mesh, in_specs=(split, ids, ids), out_specs=out)(params, tokens, targets)


@dataclasses.dataclass(frozen=True)
class Device(Pieces):
    """The model's pieces on one device, inside `shard_map`: its parameters are that device's shares."""

    mesh: Mesh

    def size(self, axis: str) -> int:
        """How many devices the axis has: one where the mesh does not have it."""
        return self.mesh.shape.get(axis, 1)

    def has(self, *axes: str) -> tuple[str, ...]:
        """Those of the axes that the mesh has."""
        return tuple(axis for axis in axes if axis in self.mesh.shape)

    def own(self, x: Array, *axes: str) -> Array:
        """`x` as each device's own along these axes: its gradients are summed over them."""
        missing = tuple(axis for axis in self.has(*axes) if axis not in varying_axes(x))
        return lax.pcast(x, missing, to="varying") if missing else x

    def gathered(self, name: str, share: Array) -> Array:
        """A parameter from the shares of the devices along fsdp; its gradient is scattered, and summed over data."""
        for dimension, axes in enumerate(rule(name)):
            if "fsdp" in self.has(*axes):
                return lax.all_gather(self.own(share, "data"), "fsdp", axis=dimension, tiled=True)
        return self.own(share, "data", "fsdp")

    def layer_parameters(self, shares: gpt2.Params) -> gpt2.Params:
        """What this device's heads and hidden columns need of a layer's parameters, from the shares of all."""
        layer = jax.tree_util.tree_map_with_path(lambda path, x: self.gathered(path_name(path), x), shares)
        if self.size("model") > 1:
            layer["attn"]["c_attn"] = self._own_heads(layer["attn"]["c_attn"])
            for module in ("attn", "mlp"):
                projection = layer[module]["c_proj"]
                layer[module] = {**layer[module], "c_proj": {**projection, "bias": self._in_place(projection["bias"])}}
        return layer

    def _own_heads(self, c_attn: gpt2.Params) -> gpt2.Params:
        """(h/N_m, 3h) → (h, 3h/N_m): the rows that a device stores, for the columns of its heads in q, k and v."""
        size, rank = self.size("model"), lax.axis_index("model")
        w, bias = c_attn["weight"], self.own(c_attn["bias"], "model")
        h = bias.shape[0] // 3
        w = lax.all_to_all(w.reshape(-1, 3, size, h // size), "model", 2, 0, tiled=True)  # (h, 3, 1, h/N_m)
        bias = lax.dynamic_index_in_dim(bias.reshape(3, size, h // size), rank, 1)
        return {"weight": w.reshape(h, 3 * h // size), "bias": bias.reshape(3 * h // size)}

    def _in_place(self, part: Array) -> Array:
        """A device's part of a bias (h/N_m,) where it stands in the whole, 0 elsewhere (h,)."""
        zeros = jnp.zeros_like(part, shape=(self.size("model") * part.shape[0],))
        return lax.dynamic_update_slice(zeros, part, (lax.axis_index("model") * part.shape[0],))

    def block(self, layer: gpt2.Params, x: Array) -> Array:
        """One layer of the stream (b, s, h), from `layer_parameters`."""
        if self.size("model") == 1:
            return gpt2.block(layer, x, self.config, self.rules)
        o, eps = operations(self.rules), self.config.layer_norm_epsilon
        for norm, module, part in (("ln_1", "attn", self._attention), ("ln_2", "mlp", self._mlp)):
            with jax.named_scope(norm):
                normed = o.layer_norm(x, layer[norm]["weight"], layer[norm]["bias"], eps)
            with jax.named_scope(module):
                x = o.residual(x, lax.psum(part(self.own(normed, "model"), layer[module]), "model"))
        return x

    def _attention(self, x: Array, attn: gpt2.Params) -> Array:
        """What this device's heads add to the stream."""
        o, heads = operations(self.rules), self.config.n_head // self.size("model")
        w_qkv, b_qkv, w_out, b_out = projections(attn, "c_attn")
        if not rule_set(self.rules).fused:
            return attend(o, x, w_qkv, b_qkv, w_out, b_out, heads)
        q, k, v = (split_heads(part, heads) for part in jnp.split(o.linear(x, w_qkv, b_qkv), 3, axis=-1))
        return o.linear(merge_heads(o.attention(q, k, v, attention_by(self.rules, x.shape[-2]))), w_out, b_out)

    def _mlp(self, x: Array, mlp: gpt2.Params) -> Array:
        """What this device's hidden columns add to the stream."""
        o = operations(self.rules)
        w_fc, b_fc, w_proj, b_proj = projections(mlp, "c_fc")
        if rule_set(self.rules).fused:
            return o.mlp(x, w_fc, b_fc, w_proj, b_proj)
        return o.linear(o.gelu(o.linear(x, w_fc, b_fc)), w_proj, b_proj)

    def layer(self, shares: gpt2.Params, x: Array) -> Array:
        """One layer, whose gathered parameters do not live from forward to backward."""

        @jax.custom_vjp
        def run(shares: gpt2.Params, x: Array) -> Array:
            return self.block(cast(self.layer_parameters(shares), self.dtype), x)

        def forward(shares: gpt2.Params, x: Array) -> tuple[Array, Any]:
            y, kept = self.keep(self.layer_parameters(shares), x)
            return y, (shares, kept)

        def backward(all_kept: Any, dy: Array) -> tuple[gpt2.Params, Array]:
            shares, kept = all_kept
            if self.recompute:
                kept = depend_on(kept, dy)
            again = shares
            if self.has("fsdp", "model"):
                again = jax.tree.map(lambda x: depend_on(x, dy[(0,) * dy.ndim]), shares)
            grads, dx = self.pull(self.layer_parameters(again), kept, dy)
            _, back = jax.vjp(self.layer_parameters, shares)
            return back(grads)[0], dx

        run.defvjp(forward, backward)
        return run(shares, x)

    def _once(self, dy: Array, shares: gpt2.Params) -> gpt2.Params:
        """The shares, not before dy exists, where anything is gathered from them."""
        if not self.has("fsdp", "model"):
            return shares
        return jax.tree.map(lambda share: depend_on(share, dy[(0,) * dy.ndim]), shares)

    def loss(self, params: gpt2.Params, tokens: Array, targets: Array) -> Array:
        """The mean over the tokens of all devices, from this device's shares and ids."""
        ends = {key: self._table(key, params[key]) for key in ("wte", "wpe", "lm_head") if key in params}
        x = gpt2.embed(cast(ends, self.dtype), tokens, self.config, self.rules)  # (b, s, h/N_m)
        if self.size("model") > 1:
            x = lax.all_gather(x, "model", axis=2, tiled=True, to="invarying")
        if isinstance(params["h"], list):
            for n, layer in enumerate(params["h"]):
                with jax.named_scope(f"h.{n}"):
                    x = self.layer(layer, x)
        else:
            with jax.named_scope("h"):
                x, _ = lax.scan(lambda x, layer: (self.layer(layer, x), None), x, params["h"])
        mine = self._head(ends, params["ln_f"], x, targets)
        return lax.psum(mine / self.mesh.size, self.mesh.axis_names)

    def _table(self, key: str, table: gpt2.Params) -> gpt2.Params:
        return {"weight": self.gathered(f"{key}.weight", table["weight"])}

    def _head(self, ends: gpt2.Params, ln_f: gpt2.Params, x: Array, targets: Array) -> Array:
        """The mean loss of the positions that are this device's along model."""
        _, key = self.head_keys
        E, ln_f = ends[key]["weight"], jax.tree.map(lambda leaf: self.own(leaf, *self.mesh.axis_names), ln_f)
        if self.size("model") > 1:
            E = lax.all_gather(E, "model", axis=1, tiled=True)
            x, targets = self._positions(x), self._positions(targets)
        read = cast({"ln_f": ln_f, key: {"weight": E}}, self.dtype)
        return gpt2.head_loss(read, x, targets, self.config, self.rules)

    def _positions(self, x: Array) -> Array:
        """This device's positions of x (b, s, …), which all along model hold: their gradients are gathered."""
        length, rank = x.shape[1] // self.size("model"), lax.axis_index("model")

        @jax.custom_vjp
        def part(x: Array) -> Array:
            return lax.dynamic_slice_in_dim(x, rank * length, length, axis=1)

        part.defvjp(
            lambda x: (part(x), None),
            lambda _, dx: (lax.all_gather(dx, "model", axis=1, tiled=True, to="invarying"),),
        )
        return part(x)
