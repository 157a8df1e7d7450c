"""Sets of rules: what each declares holds, and what an old name is answered in Python, in options and in configs."""

import jax
import jax.numpy as jnp
import pytest

from refgrad.cli import main
from refgrad.models import gpt2
from refgrad.ops import TABLE, operations
from refgrad.ops.fused import _cudnn
from refgrad.rule_sets import RENAMED, RULE_SETS, current, rule_set
from refgrad.train.settings import DTYPES, Settings

CONFIG = gpt2.Config(n_layer=1, n_head=1, n_embd=4, n_positions=4, vocab_size=8)


@pytest.mark.parametrize("name", RULE_SETS)
def test_a_set_is_what_it_declares(name):
    chosen, o = RULE_SETS[name], operations(name)
    assert hasattr(o, "block") == chosen.fused
    assert any(hasattr(op, "defvjp") for op in vars(o).values()) != chosen.by_autodiff
    packages = {spec.package for spec in TABLE.values() if any(op in (spec.op, spec.op.fun) for op in vars(o).values())}
    assert packages == set(chosen.packages)
    assert chosen.kernel in (None, _cudnn.KERNEL) and (chosen.kernel is None) != (chosen.dtypes == _cudnn.NARROW)
    for dtype in DTYPES:
        if dtype not in chosen.dtypes:
            with pytest.raises(ValueError, match="for 16 bits"):
                Settings.from_mapping({"train": {"rules": name, "dtype": dtype}})


def test_python_warns_where_the_old_name_is_used_and_goes_on():
    ids = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    with pytest.warns(DeprecationWarning, match="rules='document' is now rules='derived'") as caught:
        loss = jax.eval_shape(lambda p, t: gpt2.loss(p, t, t, CONFIG, rules="document"), gpt2.shapes(CONFIG), ids)
    assert loss.shape == () and {each.filename for each in caught} == {__file__}
    with pytest.warns(DeprecationWarning):
        assert rule_set("document") is current("derived")


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "--rules", "document"],
        ["bench", "--contender", "document"],
        ["cost", "--set", "loss.rules=document", "--stage", "counted"],
        ["train", "--set", "train.rules=document", "--out", "run"],
    ],
)
def test_an_option_gives_the_new_name(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "document" in err and "now called 'derived'" in err and err.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_config_gives_the_new_name(capsys, tmp_path):
    (tmp_path / "old.toml").write_text('[train]\nrules = "document"\n')
    assert main(["train", "--config", str(tmp_path / "old.toml"), "--out", str(tmp_path / "run")]) == 2
    assert "train.rules is 'document', which is now called 'derived'" in capsys.readouterr().err
    assert set(RENAMED) == {"document"} and set(RENAMED.values()) <= set(RULE_SETS)
