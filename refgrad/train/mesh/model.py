"""Loss and gradients of a GPT-2 on a mesh, with every collective written out.

This is the program of one device, under `jax.shard_map`. With N_d, N_f, N_m devices along data, fsdp and model, it
holds b/(N_d N_f) examples and its share of every matrix (`sharding.py`). For each layer

    forward   W ← all-gather of its share over fsdp; c_attn's rows ⇄ columns by all-to-all over model
              a module's partial sums are all-reduced over model, so that the stream is whole on every device
    backward  W is gathered again; the stream's gradient is all-reduced over model before each norm
              dW is reduce-scattered over fsdp, the share all-reduced over data

A gathered matrix does not live from forward to backward: the layer has its own rule, which keeps the residuals of the
derived rules but no parameters. The gather in the backward pass has a data dependency on the cotangent, or a compiler
would reuse the matrix that the forward gathered.

Everything else is the model's own: `gpt2.embed`, `gpt2.block` and `gpt2.head_loss`, with a device's share of the
columns. Under model > 1 a layer is composed of its operations. The second operation of each module makes partial sums,
and each device adds its own part of the bias.

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
from refgrad.models.composition import attention_by, projections
from refgrad.models.inputs import check_ids, check_params, path_name
from refgrad.numerics import depend_on
from refgrad.ops import operations
from refgrad.ops.multi_head_attention import attend, merge_heads, split_heads
from refgrad.rule_sets import rule_set
from refgrad.train.mesh.sharding import batch_spec, check, rule, specs
from refgrad.train.update_in_backward.layers import LayerVJPs, cast

Program = Callable[[gpt2.Params, Array, Array], Any]


def loss(
    config: gpt2.Config, mesh: Mesh, *, rules: str = "derived", remat: bool = False, compute_dtype: Any = None
) -> Program:
    """Return a function of (params, tokens (b, s), targets (b, s)): the mean loss, whole on every device.

    Parameters are global arrays, sharded by `sharding.RULES`, and ids by `sharding.batch_sharding`. Layers are a list,
    or stacked and walked by `lax.scan`. Before anything is compiled, the function raises ValueError as `sharding.check`
    and `gpt2.loss` do.

    Args:
        config: The model's sizes.
        mesh: A mesh made by `devices.make`, its axes explicit or auto.
        rules: The rules of the backward pass, as in `gpt2.loss`.
        remat: Recompute blocks in the backward pass.
        compute_dtype: The dtype of the forward and backward pass; None for that of the parameters.
    """
    operations(rules)
    device = DeviceModel(config, rules, remat, compute_dtype, mesh)
    return lambda params, tokens, targets: _mapped(device, device.loss, False, params, tokens, targets)


def value_and_grad(
    config: gpt2.Config, mesh: Mesh, *, rules: str = "derived", remat: bool = False, compute_dtype: Any = None
) -> Program:
    """Return a function like that of `loss`: the mean loss, and its gradients, sharded as the parameters are."""
    operations(rules)
    device = DeviceModel(config, rules, remat, compute_dtype, mesh)
    both = jax.value_and_grad(device.loss)
    return lambda params, tokens, targets: _mapped(device, both, True, params, tokens, targets)


def _mapped(
    device: "DeviceModel", program: Program, gradients: bool, params: gpt2.Params, tokens: Array, targets: Array
) -> Any:
    """Run the program on every device of the mesh."""
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
class DeviceModel(LayerVJPs):
    """The model on one device, inside `shard_map`; its parameters are that device's shares."""

    mesh: Mesh

    def size(self, axis: str) -> int:
        """Return the number of devices along the axis, 1 if the mesh does not have it."""
        return self.mesh.shape.get(axis, 1)

    def has(self, *axes: str) -> tuple[str, ...]:
        """Return the given axes that the mesh has."""
        return tuple(axis for axis in axes if axis in self.mesh.shape)

    def own(self, x: Array, *axes: str) -> Array:
        """Return x as varying along these axes, so that its gradients are summed over them."""
        missing = tuple(axis for axis in self.has(*axes) if axis not in varying_axes(x))
        return lax.pcast(x, missing, to="varying") if missing else x

    def gathered(self, name: str, share: Array) -> Array:
        """Return a parameter, gathered over fsdp; its gradient is scattered over fsdp and summed over data."""
        for dimension, axes in enumerate(rule(name)):
            if "fsdp" in self.has(*axes):
                return lax.all_gather(self.own(share, "data"), "fsdp", axis=dimension, tiled=True)
        return self.own(share, "data", "fsdp")

    def layer_parameters(self, shares: gpt2.Params) -> gpt2.Params:
        """Return the parameters that this device's heads and hidden columns need, gathered from the shares."""
        layer = jax.tree_util.tree_map_with_path(lambda path, x: self.gathered(path_name(path), x), shares)
        if self.size("model") > 1:
            layer["attn"]["c_attn"] = self._own_heads(layer["attn"]["c_attn"])
            for module in ("attn", "mlp"):
                projection = layer[module]["c_proj"]
                layer[module] = {**layer[module], "c_proj": {**projection, "bias": self._in_place(projection["bias"])}}
        return layer

    def _own_heads(self, c_attn: gpt2.Params) -> gpt2.Params:
        """Return the columns of this device's heads in q, k and v, (h, 3h/N_m), for its rows (h/N_m, 3h)."""
        size, rank = self.size("model"), lax.axis_index("model")
        w, bias = c_attn["weight"], self.own(c_attn["bias"], "model")
        h = bias.shape[0] // 3
        w = lax.all_to_all(w.reshape(-1, 3, size, h // size), "model", 2, 0, tiled=True)  # (h, 3, 1, h/N_m)
        bias = lax.dynamic_index_in_dim(bias.reshape(3, size, h // size), rank, 1)
        return {"weight": w.reshape(h, 3 * h // size), "bias": bias.reshape(3 * h // size)}

    def _in_place(self, part: Array) -> Array:
        """Return a bias (h,) with this device's part (h/N_m,) in its place and 0 elsewhere."""
        zeros = jnp.zeros_like(part, shape=(self.size("model") * part.shape[0],))
        return lax.dynamic_update_slice(zeros, part, (lax.axis_index("model") * part.shape[0],))

    def block(self, layer: gpt2.Params, x: Array) -> Array:
        """Return the stream (b, s, h) after one layer with these `layer_parameters`."""
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
        """Return the contribution of this device's heads to the stream."""
        o, heads = operations(self.rules), self.config.n_head // self.size("model")
        w_qkv, b_qkv, w_out, b_out = projections(attn, "c_attn")
        if not rule_set(self.rules).fused:
            return attend(o, x, w_qkv, b_qkv, w_out, b_out, heads)
        q, k, v = (split_heads(part, heads) for part in jnp.split(o.linear(x, w_qkv, b_qkv), 3, axis=-1))
        return o.linear(merge_heads(o.attention(q, k, v, attention_by(self.rules, x.shape[-2]))), w_out, b_out)

    def _mlp(self, x: Array, mlp: gpt2.Params) -> Array:
        """Return the contribution of this device's hidden columns to the stream."""
        o = operations(self.rules)
        w_fc, b_fc, w_proj, b_proj = projections(mlp, "c_fc")
        if rule_set(self.rules).fused:
            return o.mlp(x, w_fc, b_fc, w_proj, b_proj)
        return o.linear(o.gelu(o.linear(x, w_fc, b_fc)), w_proj, b_proj)

    def layer(self, shares: gpt2.Params, x: Array) -> Array:
        """Return the stream after one layer, whose gathered parameters do not live from forward to backward."""

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

    def loss(self, params: gpt2.Params, tokens: Array, targets: Array) -> Array:
        """Return the mean loss over the tokens of all devices, from this device's shares and ids."""
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
        share = self._head(ends, params["ln_f"], x, targets) / self.mesh.size
        return lax.psum(share, self.mesh.axis_names)

    def _table(self, key: str, table: gpt2.Params) -> gpt2.Params:
        return {"weight": self.gathered(f"{key}.weight", table["weight"])}

    def _head(self, ends: gpt2.Params, ln_f: gpt2.Params, x: Array, targets: Array) -> Array:
        """Return the mean loss of this device's positions along model."""
        _, key = self.head_keys
        E, ln_f = ends[key]["weight"], jax.tree.map(lambda leaf: self.own(leaf, *self.mesh.axis_names), ln_f)
        if self.size("model") > 1:
            E = lax.all_gather(E, "model", axis=1, tiled=True)
            x, targets = self._positions(x), self._positions(targets)
        read = cast({"ln_f": ln_f, key: {"weight": E}}, self.dtype)
        return gpt2.head_loss(read, x, targets, self.config, self.rules)

    def _positions(self, x: Array) -> Array:
        """Return this device's positions of x (b, s, …), which is whole along model; their gradients are gathered."""
        length, rank = x.shape[1] // self.size("model"), lax.axis_index("model")

        @jax.custom_vjp
        def part(x: Array) -> Array:
            return lax.dynamic_slice_in_dim(x, rank * length, length, axis=1)

        part.defvjp(
            lambda x: (part(x), None),
            lambda _, dx: (lax.all_gather(dx, "model", axis=1, tiled=True, to="invarying"),),
        )
        return part(x)
