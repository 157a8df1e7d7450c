"""Text → tokens → batches, and measures of a trained model's text.

`tokenizers` (bytes, GPT-2's BPE), `corpus` (files and folders → documents), `splits` (training or validation), `tokens`
(documents → memory-mapped ids), `batches` (a step's number → its batch), `loader` (batches made ahead), `ngrams`
(bigram and trigram models), `lines` (lines that Python's tokenizer accepts).
"""

__all__ = ["batches", "corpus", "lines", "loader", "ngrams", "splits", "tokenizers", "tokens"]
