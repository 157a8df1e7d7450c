"""GPT-2's operations by class, for the experiments that ask where its cost lies."""

from refgrad.report.figures import BLUE, GREEN, ORANGE, PURPLE

COLORS = {"contractions": BLUE, "normalisations": ORANGE, "element-wise": GREEN, "lookups": PURPLE}
CLASSES = {
    "linear": "contractions",
    "lm_head": "contractions",
    "query_key": "contractions",
    "attn_value": "contractions",
    "causal_softmax": "normalisations",
    "layer_norm": "normalisations",
    "cross_entropy": "normalisations",
    "gelu": "element-wise",
    "attention_scaling": "element-wise",
    "residual": "element-wise",
    "token_embedding": "lookups",
    "position_embedding": "lookups",
}
