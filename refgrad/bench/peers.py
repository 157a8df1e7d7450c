"""The same GPT-2 and AdamW in PyTorch, from the same parameters: eager, compiled, and transformers' own model.

Needs the `peers` extra. Torch compiles inside its first step, so that its compile time is that step's.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from refgrad.bench.machine import peak_memory
from refgrad.models import gpt2

Weights = Mapping[str, np.ndarray]


def device() -> str:
    """Return torch's device: the GPU, if it sees one, with float32 products in TF32 as JAX's are there."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    torch.set_float32_matmul_precision("high")
    return "cuda"


class TorchRunner:
    """A training step of a torch model on one batch."""

    def __init__(self, loss: Callable[[], Any], parameters: list[Any], adamw: Mapping[str, float], bf16: bool) -> None:
        import torch

        self._torch, self._loss, self._bf16 = torch, loss, bf16
        self._optimizer = torch.optim.AdamW(parameters, lr=adamw["lr"], weight_decay=adamw["weight_decay"], fused=True)
        self.built: dict[str, Any] = {"trace_s": None, "compile_s": None, "temporaries": None}

    def peak(self) -> int:
        """The most memory so far, in bytes: of the device, or of this process on a CPU."""
        return self._torch.cuda.max_memory_allocated() if device() == "cuda" else peak_memory()

    def step(self) -> float:
        """Forward, backward, update; returns the loss before the update."""
        self._optimizer.zero_grad(set_to_none=True)
        with self._torch.autocast(device(), self._torch.bfloat16, enabled=self._bf16):
            loss = self._loss()
        loss.backward()
        self._optimizer.step()
        return loss.item()


def plain(weights: Weights, config: gpt2.Config, tokens: np.ndarray, targets: np.ndarray, compiled: bool):
    """(loss, parameters) of GPT-2 in plain torch functions."""
    import torch

    p = {name: torch.nn.Parameter(torch.from_numpy(array.copy()).to(device())) for name, array in weights.items()}
    ids, goal = (torch.from_numpy(array.astype(np.int64)).to(device()) for array in (tokens, targets))

    def norm(x: Any, name: str) -> Any:
        shape = (x.shape[-1],)
        return torch.nn.functional.layer_norm(
            x, shape, p[f"{name}.weight"], p[f"{name}.bias"], config.layer_norm_epsilon
        )

    def linear(x: Any, name: str) -> Any:
        weight = p[f"{name}.weight"]  # in × out, as in the checkpoint
        flat = torch.addmm(p[f"{name}.bias"], x.reshape(-1, x.shape[-1]), weight)
        return flat.reshape(*x.shape[:-1], weight.shape[1])

    def attention(x: Any, name: str) -> Any:
        b, s, h = x.shape
        q, k, v = (
            part.reshape(b, s, config.n_head, h // config.n_head).transpose(1, 2)
            for part in linear(x, f"{name}.c_attn").split(h, dim=-1)
        )
        o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return linear(o.transpose(1, 2).reshape(b, s, h), f"{name}.c_proj")

    def loss() -> Any:
        x = torch.nn.functional.embedding(ids, p["wte.weight"]) + p["wpe.weight"][: ids.shape[1]]
        for n in range(config.n_layer):
            x = x + attention(norm(x, f"h.{n}.ln_1"), f"h.{n}.attn")
            hidden = linear(norm(x, f"h.{n}.ln_2"), f"h.{n}.mlp.c_fc")
            x = x + linear(torch.nn.functional.gelu(hidden, approximate="tanh"), f"h.{n}.mlp.c_proj")
        head = p["wte.weight" if config.tie_word_embeddings else "lm_head.weight"]
        logits = norm(x, "ln_f") @ head.T
        return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), goal.reshape(-1))

    return (torch.compile(loss) if compiled else loss), list(p.values())


def transformers_model(weights: Weights, config: gpt2.Config, tokens: np.ndarray, targets: np.ndarray):
    """(loss, parameters) of transformers' GPT2LMHeadModel without dropout."""
    import torch
    import transformers

    settings = {**dataclasses.asdict(config), "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    model: Any = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings, use_cache=False))
    model.train().to(device())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name.removeprefix("transformer.")].copy()))
    ids, goal = (torch.from_numpy(array.astype(np.int64)).to(device()) for array in (tokens, targets))

    def loss() -> Any:
        logits = model(ids).logits
        return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), goal.reshape(-1))

    return loss, list(model.parameters())
