"""The room that reads JAX programs and knows JAX's versions."""
