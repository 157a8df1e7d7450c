"""A GPT-2 on many devices: `sharding` says where each array lives, `model` computes loss and gradients with every
collective written out, `collectives` derives their payloads, and `devices` makes meshes and joins processes."""

__all__ = ["collectives", "devices", "model", "sharding"]
