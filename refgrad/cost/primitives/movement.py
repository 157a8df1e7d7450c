"""Data movement: bytes, and no operation on any element."""

from refgrad.cost.primitives.rule import Rule, free, names

RULES: dict[str, Rule] = dict.fromkeys(
    names(
        "stack unstack broadcast_in_dim reshape transpose squeeze expand_dims concatenate slice rev pad iota copy copy_p "
        "dynamic_slice dynamic_update_slice bitcast_convert_type device_put name split "
        "optimization_barrier sharding_constraint pvary pcast tile empty empty2 create_token after_all "
        "symbolic_zeros mesh_cast reshard layout_constraint random_wrap random_unwrap"
    ),
    free,
)
