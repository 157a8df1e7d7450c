"""FLOPs of decoders beyond GPT-2's shape: grouped queries, experts, gated MLPs, LoRA, untied heads, windows.

Every figure is of products of matrices. Attention is counted dense, as the traced program holds it, and effective: a
pair of query and key that the mask hides contributes nothing to the result, and a kernel that skips it does less work.
Effective FLOPs are a convention about the mask, and so a formula here: no traced program says what a mask hides.
"""

from dataclasses import dataclass


def visible_pairs(seq_len: int, causal: bool = True, window: int | None = None) -> int:
    """Return the number of (query, key) pairs that a mask lets through.

    Args:
      seq_len: T, the number of queries and of keys.
      causal: True where key j is visible to query i only for j ≤ i.
      window: w, where only keys with |i − j| < w are visible; None for all.

    Returns:
      T² without a mask, T(T + 1)/2 causal, w(w + 1)/2 + (T − w)·w causal in a window of w ≤ T.

    Raises:
      ValueError: for a size below one.

    Example:
      >>> from refgrad.cost.conventions import visible_pairs
      >>> visible_pairs(4), visible_pairs(4, window=2), visible_pairs(4, causal=False)
      (10, 7, 16)
    """
    for name, value in {"seq_len": seq_len, "window": 1 if window is None else window}.items():
        check_size(name, value)
    w = seq_len if window is None else min(window, seq_len)
    below = w * (w - 1) // 2 + (seq_len - w) * (w - 1)  # keys strictly before their query
    return seq_len + below if causal else seq_len + 2 * below


@dataclass(frozen=True)
class Decoder:
    """Sizes of a decoder. Raises ValueError for a size below one, or heads or experts that do not fit.

    Attributes:
      n_layer: L, the number of layers.
      n_embd: h, the width.
      n_head: n_h, the heads of queries.
      vocab_size: V.
      seq_len: T, the tokens of a sequence.
      batch: B, the sequences of a step.
      n_kv_head: heads of keys and values; None for as many as queries have.
      head_dim: width of a head; None for n_embd / n_head.
      mlp_width: width inside the MLP (of one expert); None for 4·n_embd.
      gated: True for a third matrix in the MLP, as in SwiGLU.
      n_experts: MLPs of a block.
      experts_per_token: the MLPs that one token meets.
      tied: True where the head is the token embedding: fewer parameters, the same FLOPs.
      causal: True where a query sees its own key and earlier ones alone.
      window: keys that a query sees, itself among them; None for all.
      lora_rank: rank of the adapters beside every frozen matrix of the blocks; 0 where the matrices themselves are
        trained.

    Example:
      >>> from refgrad.cost.conventions import Decoder
      >>> sizes = dict(n_layer=1, n_embd=8, n_head=4, vocab_size=16, seq_len=4)
      >>> Decoder(**sizes).step_flops(), Decoder(**sizes, n_kv_head=1, gated=True).step_flops()
      (23040, 26880)
    """

    n_layer: int
    n_embd: int
    n_head: int
    vocab_size: int
    seq_len: int
    batch: int = 1
    n_kv_head: int | None = None
    head_dim: int | None = None
    mlp_width: int | None = None
    gated: bool = False
    n_experts: int = 1
    experts_per_token: int = 1
    tied: bool = True
    causal: bool = True
    window: int | None = None
    lora_rank: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is None or isinstance(value, bool) or (name == "lora_rank" and value == 0):
                continue
            check_size(name, value)
        if self.head_dim is None and self.n_embd % self.n_head:
            raise ValueError(f"n_embd={self.n_embd} is not divisible by n_head={self.n_head}: give head_dim too")
        if self.n_head % self.kv_heads:
            raise ValueError(f"n_head={self.n_head} is not divisible by n_kv_head={self.n_kv_head}")
        if self.experts_per_token > self.n_experts:
            raise ValueError(f"experts_per_token={self.experts_per_token} exceeds n_experts={self.n_experts}")

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.batch * self.seq_len

    @property
    def head(self) -> int:
        """Width of a head, d."""
        return self.n_embd // self.n_head if self.head_dim is None else self.head_dim

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def attention_matrices(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of a block's projections: query, key, value, output."""
        h, queries, keys = self.n_embd, self.n_head * self.head, self.kv_heads * self.head
        return [(h, queries), (h, keys), (h, keys), (queries, h)]

    @property
    def mlp_matrices(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of the matrices of one MLP, or of one expert."""
        h, width = self.n_embd, 4 * self.n_embd if self.mlp_width is None else self.mlp_width
        return [*[(h, width)] * (2 if self.gated else 1), (width, h)]

    @property
    def router(self) -> int:
        """Entries of a block's router; 0 without experts."""
        return self.n_embd * self.n_experts if self.n_experts > 1 else 0

    @property
    def active_weights(self) -> int:
        """Entries of the matrices that one token meets, the head among them, without adapters."""
        block = _entries(self.attention_matrices) + self.experts_per_token * _entries(self.mlp_matrices) + self.router
        return self.n_layer * block + self.n_embd * self.vocab_size

    @property
    def weights(self) -> int:
        """Entries of all matrices, token embedding and head included (once where tied), without adapters."""
        idle = self.n_layer * (self.n_experts - self.experts_per_token) * _entries(self.mlp_matrices)
        return self.active_weights + idle + (0 if self.tied else self.n_embd * self.vocab_size)

    @property
    def adapters(self) -> int:
        """Entries of the adapters that one token meets."""
        matrices = [*self.attention_matrices, *self.mlp_matrices * self.experts_per_token]
        return self.n_layer * sum(self.lora_rank * (inputs + outputs) for inputs, outputs in matrices)

    @property
    def dense_attention(self) -> int:
        """Forward FLOPs of query·key and attention·value over all pairs: 4·B·n_h·d·T²·L."""
        return 4 * self.batch * self.n_head * self.head * self.seq_len**2 * self.n_layer

    @property
    def effective_attention(self) -> int:
        """The same over the pairs that the mask lets through."""
        pairs = visible_pairs(self.seq_len, self.causal, self.window)
        return 4 * self.batch * self.n_head * self.head * pairs * self.n_layer

    def forward_flops(self, effective: bool = False) -> int:
        """Return the FLOPs of a forward pass's products, with effective attention or dense."""
        attention = self.effective_attention if effective else self.dense_attention
        return 2 * self.tokens * (self.active_weights + self.adapters) + attention

    def step_flops(self, effective: bool = False) -> int:
        """Return the FLOPs of a training step's products, forward and backward.

        A product has two in its backward pass, one for each factor. Under LoRA a frozen matrix has one, by its input,
        and none for the first block's queries, keys and values, whose input nothing trained has made.
        """
        forward = self.forward_flops(effective)
        if not self.lora_rank:
            return 3 * forward
        frozen = 2 * self.tokens * self.active_weights
        first = self.attention_matrices[:3]
        unneeded = 2 * self.tokens * (_entries(first) + self.lora_rank * sum(inputs for inputs, _ in first))
        return 3 * forward - frozen - unneeded


def _entries(matrices: list[tuple[int, int]]) -> int:
    return sum(inputs * outputs for inputs, outputs in matrices)


def check_size(name: str, value: int) -> None:
    """Raise ValueError unless `value` is a Python int of at least 1."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{name}={value!r}: a size is a Python int of at least 1")
