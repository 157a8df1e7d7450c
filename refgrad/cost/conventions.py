"""Published conventions for the FLOPs of one GPT training step, from one set of plain dimensions, side by side.

Each is a formula that a paper or a program uses for forward + backward on `batch` sequences of `seq_len` tokens, for a
decoder with biases, learned positions and a tied head (GPT-2). They differ by what they leave out, and every row says
what that is. L layers, h width, n_h heads of d = h/n_h, r = MLP width / h, V vocabulary, T = seq_len, B batch,
N parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from refgrad._text import table
from refgrad.cost.decoder import Decoder, check_size, visible_pairs

__all__ = ["CONVENTIONS", "DECODERS", "Convention", "Decoder", "Dimensions", "compare", "matmul_flops", "visible_pairs"]


@dataclass(frozen=True)
class Dimensions:
    """Sizes of a GPT. Raises ValueError for a size below one, or a width that the heads do not divide.

    Attributes:
      n_layer: L, the number of layers.
      n_embd: h, the width.
      n_head: n_h, the number of heads.
      vocab_size: V.
      seq_len: T, the tokens of a sequence.
      batch: B, the sequences of a step.
      mlp_ratio: r, the width inside the MLP over h.
      n_positions: the rows of the position embedding.

    Example:
      >>> from refgrad.cost.conventions import Dimensions
      >>> Dimensions(n_layer=12, n_embd=768, n_head=12, vocab_size=50257, seq_len=1024).parameters
      124439808
    """

    n_layer: int
    n_embd: int
    n_head: int
    vocab_size: int
    seq_len: int
    batch: int = 1
    mlp_ratio: int = 4
    n_positions: int = 1024

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_size(name, value)
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd={self.n_embd} is not divisible by n_head={self.n_head}")
        if self.seq_len > self.n_positions:
            raise ValueError(f"seq_len={self.seq_len} exceeds n_positions={self.n_positions}")

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.batch * self.seq_len

    @property
    def block_weights(self) -> int:
        """Entries of the weight matrices of all blocks: L·(4 + 2r)·h²."""
        return self.n_layer * (4 + 2 * self.mlp_ratio) * self.n_embd**2

    @property
    def non_embedding(self) -> int:
        """Parameters without token and position embeddings: the blocks with biases and norms, the final norm."""
        small = self.n_layer * (9 + self.mlp_ratio) * self.n_embd + 2 * self.n_embd
        return self.block_weights + small

    @property
    def parameters(self) -> int:
        """All parameters, a tied head once."""
        return self.non_embedding + (self.vocab_size + self.n_positions) * self.n_embd


class Convention(NamedTuple):
    """One way to count the FLOPs of a training step.

    Attributes:
      name: its name.
      formula: its formula, in the module's symbols.
      flops: the count for `Dimensions` (in `CONVENTIONS`) or for a `Decoder` (in `DECODERS`).
      leaves_out: its omissions.
      source: its publication.

    Example:
      >>> from refgrad.cost.conventions import CONVENTIONS, Dimensions
      >>> tiny = Dimensions(n_layer=1, n_embd=4, n_head=2, vocab_size=8, seq_len=4)
      >>> {c.name: c.flops(tiny) for c in CONVENTIONS}["matmuls, exact"]
      6144
    """

    name: str
    formula: str
    flops: Callable[[Any], int]
    leaves_out: str
    source: str


def matmul_flops(d: Dimensions) -> int:
    """Return the exact FLOPs of every product of matrices, forward and backward, dense attention, tied head.

    Args:
      d: the model's sizes.

    Returns:
      The FLOPs of one training step.

    Example:
      >>> from refgrad.cost.conventions import Dimensions, matmul_flops
      >>> matmul_flops(Dimensions(n_layer=1, n_embd=4, n_head=2, vocab_size=8, seq_len=4))
      6144
    """
    forward = 2 * d.tokens * (d.block_weights + d.n_embd * d.vocab_size) + _attention(d)
    return 3 * forward  # backward: one product for each of the two factors


def _attention(d: Dimensions) -> int:
    """Forward FLOPs of query@key and attention@value, dense: 4·B·T²·h·L."""
    return 4 * d.batch * d.seq_len**2 * d.n_embd * d.n_layer


def _electra(d: Dimensions) -> int:
    h, s, v, i = d.n_embd, d.seq_len, d.vocab_size, d.mlp_ratio * d.n_embd
    dropout, norm, activation, softmax = 4, 5, 8, 5  # operations an element, by the script
    projections = 3 * (2 * h * h + h) + 2 * h * h + h
    scores = 2 * h * s + 2 * h * s + (softmax + dropout + 1) * s * d.n_head
    # The script adds the attention's norm as 5 in all, where the other norms are 5·h.
    after = dropout * h + h + norm + dropout * h + h + norm * h
    mlp = 2 * h * i + (activation + 1) * i + 2 * h * i + h
    block = projections + scores + after + mlp
    embedding = 2 * h * v + 2 * h * (s + 2) + 2 * h + norm * h + dropout * h
    output = 2 * h * v + 2 * h * h + h + (activation + norm) * h + (softmax + 2) * v
    return 2 * d.batch * s * (d.n_layer * block + embedding + output)


def _casson(d: Dimensions) -> int:
    attention = 2 * d.n_layer * d.seq_len * d.n_embd
    a_token = 4 * d.n_embd + 2 * d.block_weights + attention + 2 * d.n_embd * d.vocab_size
    return 3 * d.tokens * a_token


def _chinchilla(d: Dimensions) -> int:
    softmax = 3 * d.batch * d.n_head * d.seq_len**2 * d.n_layer
    embedding = 2 * d.tokens * d.vocab_size * d.n_embd
    return matmul_flops(d) + 3 * (softmax + embedding)


CONVENTIONS: tuple[Convention, ...] = (
    Convention(
        "Kaplan 6N",
        "6·N_non-embedding·B·T",
        lambda d: 6 * d.non_embedding * d.tokens,
        "the head, attention's two products, everything element-wise",
        "Kaplan et al. 2020, Scaling Laws for Neural Language Models, arXiv:2001.08361, section 2.1",
    ),
    Convention(
        "6ND",
        "6·N·B·T",
        lambda d: 6 * d.parameters * d.tokens,
        "attention's two products, everything element-wise; counts position embeddings, norms and biases as products",
        "the rule C = 6ND, used with all parameters, e.g. Hoffmann et al. 2022, arXiv:2203.15556",
    ),
    Convention(
        "llm.c",
        "(6·N + 6·L·h·T)·B·T",
        lambda d: (6 * d.parameters + 6 * d.n_layer * d.n_embd * d.seq_len) * d.tokens,
        "half of attention's two products (counted as causal); everything element-wise",
        "karpathy/llm.c, train_gpt2.cu, gpt2_estimate_mfu (there with the vocabulary padded to 50304)",
    ),
    Convention(
        "MaxText",
        "6·(L(4+2r)h² + hV)·B·T + 6·L·h·B·T²",
        lambda d: matmul_flops(d) - 3 * _attention(d) // 2,
        "half of attention's two products (counted as causal); everything element-wise",
        "AI-Hypercomputer/maxtext, maxtext_utils.py, calculate_tflops_training_per_device (causal)",
    ),
    Convention(
        "Casson (OpenAI)",
        "3·(4h + 2·L(4+2r)h² + 2·L·T·h + 2hV)·B·T",
        _casson,
        "one of attention's two products; softmax, norms, activations; the backward as 2 forwards",
        "Casson 2023, Transformer FLOPs, adamcasson.com/posts/transformer-flops, after Kaplan's table 1",
    ),
    Convention(
        "matmuls, exact",
        "6·(L(4+2r)h² + hV)·B·T + 12·L·h·B·T²",
        matmul_flops,
        "everything element-wise; attention is dense, the causal half is not subtracted",
        "this project: every product of matrices, as the traced program holds it",
    ),
    Convention(
        "nanoGPT",
        "(6·(N − N_positions) + 12·L·h·T)·B·T",
        lambda d: (6 * (d.parameters - d.n_positions * d.n_embd) + 12 * d.n_layer * d.n_embd * d.seq_len) * d.tokens,
        "everything element-wise; counts norms and biases as products",
        "karpathy/nanoGPT, model.py, estimate_mfu and get_num_params",
    ),
    Convention(
        "PaLM",
        "(6·N + 12·L·n_h·d·T)·B·T",
        lambda d: (6 * d.parameters + 12 * d.n_layer * d.n_embd * d.seq_len) * d.tokens,
        "everything element-wise; counts position embeddings, norms and biases as products",
        "Chowdhery et al. 2022, PaLM, arXiv:2204.02311, appendix B",
    ),
    Convention(
        "ELECTRA's script",
        "2·forward, with biases, dropout, norms, activations, one-hot embedding",
        _electra,
        "half of the backward (taken as one forward); counts dropout, an output layer and a dense embedding "
        "that GPT-2 does not have",
        "google-research/electra, flops_computation.py, get_train_flops (output_frac = 1)",
    ),
    Convention(
        "Chinchilla F",
        "3·forward, with a one-hot embedding and 3·n_h·T² for softmax",
        _chinchilla,
        "biases, norms, activations; counts the embedding look-up as a product of matrices, and its backward twice",
        "Hoffmann et al. 2022, Training Compute-Optimal Large Language Models, arXiv:2203.15556, appendix F",
    ),
)


DECODERS: tuple[Convention, ...] = (
    Convention(
        "6·N_active",
        "6·N_active·B·T",
        lambda d: 6 * d.active_weights * d.tokens,
        "attention's two products, adapters, everything element-wise; counts frozen matrices as trained",
        "the rule C = 6ND, with the parameters that one token meets",
    ),
    Convention(
        "PaLM, with active parameters",
        "(6·N_active + 12·L·n_h·d·T)·B·T",
        lambda d: 6 * d.active_weights * d.tokens + 3 * d.dense_attention,
        "adapters, everything element-wise; attention is dense; counts frozen matrices as trained",
        "Chowdhery et al. 2022, PaLM, arXiv:2204.02311, appendix B, with the parameters that one token meets",
    ),
    Convention(
        "matmuls, exact",
        "every product of the traced program",
        lambda d: d.step_flops(),
        "everything element-wise; attention is dense, what is hidden by the mask is counted",
        "this project",
    ),
    Convention(
        "matmuls, effective",
        "the same over visible pairs",
        lambda d: d.step_flops(effective=True),
        "everything element-wise; the pairs hidden by the mask, which a dense kernel computes",
        "this project",
    ),
)


def compare(d: Dimensions | Decoder) -> str:
    """Return all conventions for the same dimensions as a table: FLOPs of a step, and the ratio to the exact products.

    Args:
      d: the sizes: `Dimensions` for a GPT-2, a `Decoder` for everything else.

    Returns:
      The table as text.

    Raises:
      TypeError: where `d` is neither.

    Example:
      >>> from refgrad.cost.conventions import Dimensions, compare
      >>> text = compare(Dimensions(n_layer=1, n_embd=4, n_head=2, vocab_size=8, seq_len=4))
      >>> text.splitlines()[0].split()[:4]
      ['convention', 'FLOPs', 'of', 'a']
    """
    if not isinstance(d, Dimensions | Decoder):
        raise TypeError(f"d={d!r}: give Dimensions(n_layer, n_embd, n_head, vocab_size, seq_len, ...)")
    conventions, exact = (DECODERS, d.step_flops()) if isinstance(d, Decoder) else (CONVENTIONS, matmul_flops(d))
    rows = []
    for c in conventions:
        flops = c.flops(d)
        rows.append([c.name, f"{flops:,}", f"{flops / exact:.4f}", c.formula, c.leaves_out, c.source])
    return table(["convention", "FLOPs of a step", "/ exact", "formula", "leaves out", "source"], rows)
