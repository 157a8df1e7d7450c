"""Measurements as a product: contenders in processes of their own, interleaved with a baseline, beside the roofline."""
