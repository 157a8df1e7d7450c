"""Text → tokens → batches, and what a trained model's text is measured by.

`tokenizers` (bytes, GPT-2's BPE), `corpus` (files and folders → documents), `tokens` (documents → memory-mapped ids),
`batches` (a step's number → its batch), `loader` (batches made ahead), `ngrams` (bigram and trigram models), `lines`
(is it Python?).
"""
