"""What every sub-command has from `main`."""

from refgrad.cli import INTERRUPTED, claims, main


def test_an_interruption_is_one_line(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(claims, "run", interrupted)
    assert main(["claims"]) == INTERRUPTED
    assert capsys.readouterr().err == "refgrad claims: interrupted\n"
