"""What is left to the machine: its precision, whether it compiles, and what it says about bad choices."""

import json
import os
import platform
import subprocess
import sys

import pytest
import torch

import checkpoints
import main
import opts
from datasets import digits
from examples import needs_compiler
from formats import exit_file
from inference import asking, saved
from programs import PROJECT, script
from runs import FOLDER, SMALL, last_state
from system import arithmetic
from system.errors import UsageError
from system.machine import Machine
from training import introduction, setup

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
TINY = [*SMALL, "--trainSize", "64", "--nEpochs", "2", "--batchsize", "32"]
EMULATED = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}  # the library that convolves then has no 16-bit instructions
x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="ONEDNN_MAX_CPU_ISA=AVX2 is for x86 processors")


def run(*arguments, environment=None):
    command = [sys.executable, str(PROJECT / "main.py"), *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert process.returncode == 0, process.stderr
    return process


def chosen(save):
    return json.loads((save / FOLDER / "opt.json").read_text())["precision"]


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bf16_where_that_is_quicker_and_explicit_values_win(native, monkeypatch):
    monkeypatch.setattr(arithmetic, "computes_bf16", lambda device: native)
    assert arithmetic.choose_precision("auto", CPU) == ("bf16" if native else "float")
    assert [arithmetic.choose_precision(given, CPU) for given in ("float", "bf16", "half")] == ["float", "bf16", "half"]
    assert (arithmetic.slow("bf16", CPU) is None) == native
    assert "slow on a CPU" in arithmetic.slow("half", CPU)
    assert arithmetic.slow("float", CPU) is None


@pytest.mark.parametrize(("float_seconds", "native"), [(2.0, True), (1.05, False), (0.5, False)])
def test_bf16_is_native_where_it_is_much_quicker(float_seconds, native, monkeypatch):
    monkeypatch.setattr(arithmetic, "_convolve", lambda dtype: float_seconds if dtype is torch.float32 else 1.0)
    assert arithmetic.computes_bf16.__wrapped__(CPU) is native


def test_asking_the_machine_leaves_its_threads_alone():
    torch.set_num_threads(3)
    arithmetic.computes_bf16.__wrapped__(CPU)  # whatever it found before
    assert torch.get_num_threads() == 3


@x86
def test_emulated_bf16_is_not_chosen_and_is_called_slow(tmp_path):
    auto = run(*TINY, "--precision", "auto", "--save", tmp_path / "auto", environment=EMULATED)
    assert "chosen for this machine: precision=float" in auto.stdout
    assert chosen(tmp_path / "auto") == "float"
    told = run(*TINY, "--precision", "bf16", "--save", tmp_path / "told", environment=EMULATED)
    assert "--precision bf16 is emulated on this machine" in told.stderr
    assert chosen(tmp_path / "told") == "bf16"


@pytest.mark.parametrize("how", ["same command", "folder"])
@pytest.mark.parametrize(("first", "then"), [("float", "bf16"), ("bf16", "float")])
def test_a_resumed_run_keeps_what_was_chosen_elsewhere(first, then, how, tmp_path, monkeypatch, capsys):
    line = [*TINY, "--recipe", "fast", "--schedule", "cosine", "--save", str(tmp_path)]
    monkeypatch.setattr(arithmetic, "computes_bf16", lambda device: first == "bf16")
    main.main(line)
    monkeypatch.setattr(arithmetic, "computes_bf16", lambda device: then == "bf16")
    capsys.readouterr()
    again = [*line, "--resume"] if how == "same command" else ["--resume", str(tmp_path / FOLDER)]
    main.main([*again, "--nEpochs", "3"])
    output, told = capsys.readouterr()
    assert chosen(tmp_path) == first
    assert "epoch 3/3" in output
    assert ("--precision bf16 is emulated on this machine" in told) == (first == "bf16")


def test_short_runs_are_not_compiled_and_long_ones_where_a_compiler_works(tmp_path, monkeypatch, capsys):
    main.main([*TINY, "--compile", "auto", "--save", str(tmp_path / "short")])
    assert "chosen for this machine: compile=false" in capsys.readouterr().out
    assert not arithmetic.choose_compile(1e9, CPU)
    for works in (True, False):
        monkeypatch.setattr(arithmetic, "compiles", lambda device, works=works: works)
        assert arithmetic.choose_compile(1e18, CPU) is works


def test_no_compiler_no_compiling(tmp_path):
    code = "from system import arithmetic; import torch; print(arithmetic.choose_compile(1e18, torch.device('cpu')))"
    environment = {**os.environ, "CXX": "/no/such/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert process.stdout == "False\n", process.stderr
    command = [sys.executable, "main.py", *TINY, "--save", str(tmp_path), "--compile", "true"]
    told = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120)
    assert told.returncode == 1
    assert "--compile true: PyTorch finds no compiler here" in told.stderr.splitlines()[-1]
    assert "Traceback" not in told.stderr


def test_a_compiled_run_goes_on_without_a_compiler(tmp_path):
    """As on another machine, or in another container."""
    main.main([*TINY, "--nEpochs", "2", "--save", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    state = last_state(folder)
    checkpoints.RunFiles(folder, ()).write_state(
        {**state, "options": {**state["options"], "compile": True, "nEpochs": 3}}
    )
    (folder / "opt.json").unlink()
    environment = {**os.environ, "CXX": "/no/such/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "main.py", "--resume", str(folder)]
    told = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    assert "epoch 3/3" in told.stdout
    assert "no compiler here that works: from here on steps are not compiled" in told.stderr


def test_a_run_goes_on_compiled_or_not():
    compiled, plain = (opts.parse([*TINY, "--compile", flag]) for flag in ("true", "false"))
    opts.resumed(plain, compiled)
    opts.resumed(compiled, plain)
    assert opts.resumed(opts.parse([*TINY, "--compile", "auto"]), compiled).compile is True
    with pytest.raises(UsageError, match="--compile true is for one device, --nGPU is 2"):
        opts.resumed(opts.parse([*TINY, "--compile", "auto", "--nGPU", "2"]), compiled)


@pytest.mark.parametrize("excluding", ["", "--shareGradInput true", "--syncBN true", "--nGPU 2"])
def test_compile_auto_gives_way_to_what_it_excludes(excluding, monkeypatch):
    monkeypatch.setattr(arithmetic, "compiles", lambda device: True)
    options = opts.parse(["--recipe", "fast", *excluding.split()])
    assert setup.choose(options, 10**18, [CPU]).compile is (not excluding)
    if excluding:
        with pytest.raises(UsageError, match=f"--compile true .*{excluding.split()[0]}"):
            opts.parse(["--recipe", "fast", "--compile", "true", *excluding.split()])


def test_the_authors_recipe_says_once_that_16_bits_are_quicker(monkeypatch, tmp_path, capsys):
    hint = "this machine computes bf16 natively"
    main.main([*TINY, "--save", str(tmp_path / "short")])
    assert hint not in capsys.readouterr().out
    monkeypatch.setitem(arithmetic.WORTH_COMPILING, "cpu", 1)
    monkeypatch.setattr(arithmetic, "computes_bf16", lambda device: True)  # whatever this machine is
    main.main([*TINY, "--save", str(tmp_path / "long")])
    assert capsys.readouterr().out.count(hint) == 1
    main.main([*TINY, "--nEpochs", "8", "--recipe", "fast", "--compile", "false", "--save", str(tmp_path / "fast")])
    assert hint not in capsys.readouterr().out


@pytest.mark.parametrize("line", ["--compile true", "--shareGradInput true", "--syncBN true"])
def test_that_advice_does_not_name_what_is_done_or_cannot_be(line, monkeypatch):
    monkeypatch.setattr(arithmetic, "computes_bf16", lambda device: True)
    told = [introduction.hint(opts.parse(words.split()), 10**18, CPU) for words in ("", line)]
    assert ["--compile auto" in text for text in told] == [True, False]


def test_exits_answer_in_the_precision_asked_for(finished):
    model, pictures = saved.load(exit_file.files_in(finished[1])), digits.load(None, "test").whole()
    for precision in ("float", "bf16"):
        logits, _ = asking.collect(model, pictures, Machine([CPU], precision))
        assert all(z.equal(z.bfloat16().float()) == (precision == "bf16") for z in logits)


@needs_compiler
def test_a_compiler_that_works_is_found():
    assert arithmetic.compiles(CPU)


def test_test_py_has_a_precision_too(finished, tmp_path):
    _, folder, _ = finished
    rounded = ("--precision", "bf16", "--exit", "all", "--json", tmp_path / "card.json")
    assert script("test.py", "DIGITS", folder, *rounded).returncode == 0
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["precision"] == "bf16"
    header = exit_file.read_header(folder / "exit-14.safetensors")
    assert abs(card["exits"][-1]["error_percent"] - header["error"]) < 3
    slow = script("test.py", "DIGITS", folder / "exit-14.safetensors", "--precision", "half")
    assert "--precision half is slow on a CPU" in slow.stderr
    assert slow.stdout.startswith("error ")
