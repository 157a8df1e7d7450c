"""Runs of one program, in many tests: it is compiled once."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

KEEP = {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """While the module's tests run, what has been compiled is kept on disk; yields the folder."""
    folder = tmp_path_factory.mktemp("compiled")
    before = {key: getattr(jax.config, key) for key in ("jax_compilation_cache_dir", *KEEP)}
    for key, value in {"jax_compilation_cache_dir": str(folder), **KEEP}.items():
        jax.config.update(key, value)
    compilation_cache.reset_cache()
    yield folder
    for key, value in before.items():
        jax.config.update(key, value)
    compilation_cache.reset_cache()
