"""The packages, and what pip installs into the environment of each: first the distribution that is surveyed.

tfp-nightly: the released tensorflow-probability (0.25.0) does not import under the newest JAX.
"""

PACKAGES: dict[str, tuple[str, ...]] = {
    "jax": ("jax",),
    "optax": ("optax",),
    "flax": ("flax",),
    "equinox": ("equinox",),
    "distrax": ("distrax", "tfp-nightly"),
    "tfp": ("tfp-nightly",),
    "jaxopt": ("jaxopt",),
    "optimistix": ("optimistix",),
    "lineax": ("lineax",),
    "ott": ("ott-jax",),
    "ejkernel": ("ejkernel",),
    "tokamax": ("tokamax",),
    "mjx": ("mujoco-mjx", "warp-lang"),
    "numpyro": ("numpyro",),
    "rlax": ("rlax", "tfp-nightly"),
    "e3nn": ("e3nn-jax",),
}
