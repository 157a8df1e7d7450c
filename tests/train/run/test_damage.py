"""The groups in which a checkpoint's leaves are read back: bounded in memory, of one item each."""

from refgrad.train.run import damage


def test_a_group_is_of_one_item_and_within_its_bytes(monkeypatch):
    monkeypatch.setattr(damage, "GROUP", 8 * 100)
    shapes = {"params.a": (60,), "params.b": (40,), "params.c": (1,), "params.d": (500,), "opt_state.a": (2, 3)}
    facts = {name: {"shape": shape} for name, shape in shapes.items()}
    assert list(damage._groups(facts)) == [["params.a", "params.b"], ["params.c"], ["params.d"], ["opt_state.a"]]
