import json

import pytest

from benchmarks.command import main


def test_an_unknown_scenario_is_named_with_those_that_there_are():
    with pytest.raises(SystemExit, match="'saturate' is not one of overhead, step_loop, saturated"):
        main(["--scenarios", "saturate"])


def test_a_repository_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["--repository", str(tmp_path / "none"), "--results", str(tmp_path / "r.json")]) == 1
    assert "name one with --repository" in capsys.readouterr().err


def test_what_it_costs_to_be_watched_is_measured(tiny_repository, tmp_path, capsys):
    results = tmp_path / "results.json"
    flags = ["--quick", "--seconds", "0.3", "--scenarios", "watching", "--one-pass", "tiny_gan"]
    flags += ["--diffusion", "tiny_gaussian", "--repository", str(tiny_repository)]
    assert main([*flags, "--results", str(results)]) == 0
    figures = json.loads(results.read_text())["watching"]["figures"]
    for runs in figures["models"].values():
        assert set(runs) == {"nothing", "once", "often", "traced"}
        assert all(run["rows"] > 0 for each in runs.values() for run in each)
    assert figures["scrapes"]["series"] > 100
    assert "what being watched costs" in capsys.readouterr().out


def test_a_scenario_is_measured_saved_and_shown(tiny_repository, tmp_path, capsys):
    results = tmp_path / "results.json"
    flags = ["--quick", "--seconds", "0.2", "--scenarios", "overhead,step_loop", "--one-pass", "tiny_gan"]
    flags += ["--diffusion", "tiny_gaussian", "--repository", str(tiny_repository)]
    assert main([*flags, "--results", str(results)]) == 0
    saved = json.loads(results.read_text())
    assert saved["overhead"]["figures"]["model"] == "tiny_gan"
    assert saved["overhead"]["figures"]["runs"][0]["http_p50"] > 0
    assert saved["step_loop"]["figures"]["tiny_gaussian"][0]["own"] > 0
    assert str(tmp_path) not in saved["overhead"]["command"]
    assert "One image with nothing else going on" in capsys.readouterr().out
