"""Whole trainings under torchrun: one process speaks, all stop together, and what is lost is taken up again."""

import io
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest

import main
from datasets import catalog, identity, splits
from examples import FailingAt, logits_of
from formats import exit_file, log_file
from inference import saved
from models.metrics import top_error
from programs import PROJECT, begin, children, rows_of, script, together
from runs import epochs_saved, exit_files, last_state, logged, points, stopped, wait_for_epochs
from system import arithmetic, world
from system.errors import UserError
from system.workers import WorkerDied
from training import run, setup, trainer
from training.run import Run
from training.trainer import Trainer

pytestmark = pytest.mark.slow

OPTIONS = ["--data", "DIGITS", "--depth", "8", "--trainSize", "320", "--batchsize", "36", "--nGPU", "0",
           "--nThreads", "1", "--dropout", "0.1", "--ema", "0.9", "--recipe", "fast", "--startSize", "16",
           "--precision", "float", "--compile", "false"]  # fmt: skip
FOLDER = "DIGITS-AuxResNet-8-2-dropout-0.1"


def torchrun(save, *options, nodes=("--standalone",), processes=2, restarts=0, place=(), program="main.py"):
    """torchrun with so many processes of a program, started, by the command `place` if there is one."""
    launcher = [*place, sys.executable, "-m", "torch.distributed.run", *nodes, "--nproc-per-node", str(processes)]
    command = [*launcher, "--max-restarts", str(restarts), str(program), *OPTIONS, "--save", str(save), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return begin(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE)


def identified():
    """What a process is told that has 100 pictures, or, if it is not the first, 101."""
    found = splits.for_training(catalog.find("DIGITS", Path()), 100 if world.is_first() else 101, 0)
    try:
        return setup.identified(found, None) == identity.describe(found)
    except UserError as error:
        return str(error)


def test_a_host_with_other_pictures_is_told_so():
    first, other = together(2, identified)
    assert first is True
    assert re.match(r"the data of this host are not those of the first one: .*give all hosts", other)


def trained(save, *options):
    main.main([*OPTIONS, "--save", str(save), *options])


def told(save, *options):
    """The same; what it prints."""
    with redirect_stdout(io.StringIO()) as printed:
        trained(save, *options)
    return printed.getvalue()


@pytest.mark.parametrize("precision", ["float", "bf16"])
def test_several_processes_keep_the_epoch_that_does_best_on_held_out_pictures(precision, tested, tmp_path):
    """And test it, with the errors that one process finds."""
    line = ["--valSize", "60", "--nEpochs", "4", "--precision", precision]
    printed, others = together(2, told, tmp_path, *line, joined=False)
    assert others == ""
    errors = [row["validation_error_8"] for row in log_file.read(tmp_path / FOLDER)]
    held_out, rows = splits.held_out(catalog.find("DIGITS", Path()), 60), rows_of(printed)
    assert [row["exit"] for row in rows] == ["5", "8"]
    for row in rows:
        path = Path(row["file"])
        model, header = saved.load({int(row["exit"]): path}), exit_file.read_header(path)
        assert header["epochs"] == 1 + errors.index(min(errors))
        found = [top_error(logits_of(model, of.images)[0], of.targets) for of in (held_out, tested)]
        assert header["error"] == pytest.approx(found[0])
        assert [row["validation error"], row["test error"]] == [f"{error:.2f} %" for error in found]


def ranks(launcher):
    """The processes of a torchrun, by rank."""
    places = {child: Path(f"/proc/{child}/environ").read_bytes() for child in children(launcher.pid)}
    found = {child: re.search(rb"\0RANK=(\d+)", place) for child, place in places.items()}
    return {int(rank[1]): child for child, rank in found.items() if rank}


def test_killed_processes_are_started_again_and_end_with_the_same_bits(tmp_path):
    """Whichever of them it is; and one process tests the exits as two did."""
    size = ["--nEpochs", "8", "--batchsize", "17"]
    together(2, trained, tmp_path / "whole", *size, joined=False)
    options = [*size, "--resume", "auto", "--saveEvery", "0", "--tensorboard"]
    launcher = torchrun(tmp_path, *options, restarts=2)
    for rank, epochs in ((1, 1), (0, 2)):  # one may still be saved by those whom the first kill ends
        wait_for_epochs(tmp_path / FOLDER, epochs_saved(tmp_path / FOLDER) + epochs, launcher)
        time.sleep(0.3)
        os.kill(ranks(launcher)[rank], signal.SIGKILL)
    output, errors = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, errors
    assert output.count("epoch 8/8") == 1
    assert output.count("resumed after epoch") == 2
    whole = tmp_path / "whole" / FOLDER
    assert exit_files(tmp_path / FOLDER) == exit_files(whole)
    assert logged(tmp_path / FOLDER) == logged(whole)
    assert [epoch for epoch, _ in points(tmp_path / FOLDER / "tensorboard")["error/test_8"]] == [*range(1, 9)]
    for path in whole.glob("exit-*.safetensors"):
        assert exit_file.read_header(path)["shares"] == 2
        tested = script("test.py", "DIGITS", path, "--nGPU", "0").stdout
        assert f"error {exit_file.read_header(path)['error']:.2f}" in tested


@pytest.mark.parametrize("whom", ["one process", "torchrun"])
def test_a_signal_to_one_or_all_saves_once_and_other_numbers_of_processes_go_on(whom, tmp_path):
    size = ["--nEpochs", "100", "--batchsize", "7"]  # 46 steps, so that a signal comes in the midst of an epoch
    launcher = torchrun(tmp_path, *size)
    wait_for_epochs(tmp_path / FOLDER, 1, launcher)
    before = (tmp_path / FOLDER / "latest.pt").read_bytes()
    os.kill(ranks(launcher)[1] if whom == "one process" else launcher.pid, signal.SIGTERM)
    _, errors = launcher.communicate(timeout=60)
    assert errors.count("stopped by SIGTERM; the state is saved; go on with: torchrun --nproc_per_node 2 ") == 1, errors
    assert (tmp_path / FOLDER / "latest.pt").read_bytes() != before
    assert not (tmp_path / FOLDER / ".lock").exists()
    state = last_state(tmp_path / FOLDER)
    assert state["sums"]["pictures"] == min(state["step"] * 7, 320)
    if whom == "torchrun":
        return
    together(3, resumed_for_an_epoch, tmp_path, size, joined=False)
    resumed_for_an_epoch(tmp_path, size)
    assert [int(row["epoch"]) for row in logged(tmp_path / FOLDER)] == list(range(1, len(state["log"]) + 3))


def resumed_for_an_epoch(save, size):
    """Go on, and stop by a signal in the test after the next epoch but one."""
    stopped([*OPTIONS, "--save", save, *size, "--resume", "auto"], Run, "evaluate", 2)


FAILING = """
import os, runpy, sys
sys.path.insert(0, os.getcwd())
from system.errors import UserError
from training.trainer import Trainer

def step(*arguments, real=Trainer.step, good=iter(range(12))):
    if os.environ["RANK"] == os.environ["FAILING"] and next(good, None) is None:
        raise UserError("this one fails")
    return real(*arguments)

Trainer.step = step
runpy.run_path("main.py", run_name="__main__")
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_names_its_process_and_others_are_silent(rank, tmp_path, monkeypatch):
    program = tmp_path / "failing.py"
    program.write_text(FAILING)
    monkeypatch.setenv("FAILING", str(rank))
    launcher = torchrun(tmp_path, program=program)
    output, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 1
    assert output.count("epoch 1/8") == 1
    told = [line for line in errors.splitlines() if line.startswith("main.py")]
    assert told == [f"main.py (rank {rank}): error: this one fails"]


def test_two_agents_are_two_nodes(tmp_path):
    nodes = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--rdzv-id", "test"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nodes[5] = f"127.0.0.1:{free.getsockname()[1]}"
    agents = [torchrun(tmp_path, "--nEpochs", "2", nodes=nodes, processes=1) for _ in range(2)]
    outputs = [agent.communicate(timeout=120) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], outputs
    assert sorted(output.count("epoch 2/2") for output, _ in outputs) == [0, 1]
    assert len(logged(tmp_path / FOLDER)) == 2


def with_a_worker_that_dies(save):
    """What a process is told that trains beside another; a loader worker of the first one dies after three batches."""
    real = run.training_batches

    def dying(*arguments, **options):
        yield from itertools.islice(real(*arguments, **options), 3)
        raise WorkerDied("a worker died: process 7 was killed by SIGKILL")

    if os.environ["RANK"] == "0":
        run.training_batches = dying
    try:
        trained(save)
    except UserError as error:
        return str(error)


def test_what_was_done_when_a_worker_of_one_process_died_is_not_lost(tmp_path):
    first, other = together(2, with_a_worker_that_dies, tmp_path, joined=False)
    assert first.startswith("a worker died: process 7 was killed by SIGKILL; go on with torchrun")
    assert other.startswith("another process was lost")
    assert last_state(tmp_path / FOLDER)["step"] == 3


def signalled_while(owner, name, save):
    """The status with which a process ends that trains beside another, if a signal comes when the function `name` of
    `owner` is called."""
    real = getattr(owner, name)

    def hear(*arguments, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **named)

    setattr(owner, name, hear)
    with pytest.raises(SystemExit) as ended:
        trained(save, "--compile", "true")
    return ended.value.code


def signalled_while_it_tries_a_compiler(save, works):
    """The same, where the first process tries a compiler, which the signal may be the end of."""
    arithmetic.compiles = lambda _: works
    return signalled_while(setup, "identified", save)


def signalled_while_it_compiles(save):
    """The same, where the signal is the end of the compiler of the first process, too, at the code of a step."""
    arithmetic.compiles = lambda _: True
    if os.environ["RANK"] == "0":
        trainer._compiled = lambda model: FailingAt(1, model)
    else:
        trainer._compiled = lambda model: model
    return signalled_while(Trainer, "step", save)


def test_a_signal_that_ends_the_compiler_of_one_process_stops_all(tmp_path):
    assert together(2, signalled_while_it_compiles, tmp_path, joined=False) == [143, 143]
    state = last_state(tmp_path / FOLDER)
    assert (state["step"], state["options"]["compile"]) == (0, True)


@pytest.mark.parametrize("works", [True, False])
def test_a_signal_while_a_compiler_is_tried_chooses_nothing(tmp_path, works):
    """A signal to all processes is one to the compiler, too, whose end does not mean that there is none."""
    assert together(2, signalled_while_it_tries_a_compiler, tmp_path, works, joined=False) == [143, 143]
    assert not (tmp_path / FOLDER).exists()


@contextmanager
def two_hosts():
    """The names of two network namespaces, which reach each other at 10.77.0.1 and 10.77.0.2, as two hosts do."""
    names = [f"auxresnet{number}" for number in (1, 2)]
    link = ["veth1", "netns", names[0], "type", "veth", "peer", "name", "veth2", "netns", names[1]]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", *link)
        for number, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", f"veth{number}")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", f"veth{number}", "up")
        yield names
    finally:
        for name in names:
            kill_all_of(name)
            subprocess.run(["ip", "netns", "delete", name], check=False)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def kill_all_of(host):
    for process in subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True).stdout.split():
        os.kill(int(process), signal.SIGKILL)


def agents_of_two_hosts(hosts, save, nodes, epochs):
    for number, host in enumerate(hosts, 1):
        rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "10.77.0.1:29400", "--rdzv-id", "test",
                      "--rdzv-conf", f"is_host={int(number == 1)}", "--local-addr", f"10.77.0.{number}"]  # fmt: skip
        place = ["ip", "netns", "exec", host, "env", f"GLOO_SOCKET_IFNAME=veth{number}"]
        options = ["--nEpochs", str(epochs), "--resume", "auto"]
        yield torchrun(save, *options, nodes=["--nnodes", nodes, *rendezvous], processes=1, restarts=5, place=place)


namespaces = pytest.mark.skipif(
    os.environ.get("AUXRESNET_NAMESPACES") != "1",
    reason="makes network namespaces, which wants root and two minutes: set AUXRESNET_NAMESPACES=1",
)


@namespaces
def test_a_link_that_is_cut_for_a_while_loses_nothing(tmp_path):
    with two_hosts() as hosts:
        agents = list(agents_of_two_hosts(hosts, tmp_path, "2", epochs=40))
        wait_for_epochs(tmp_path / FOLDER, 3, agents[0])
        ip("-n", hosts[0], "link", "set", "veth1", "down")
        time.sleep(20)
        done = len(logged(tmp_path / FOLDER))
        ip("-n", hosts[0], "link", "set", "veth1", "up")
        outputs = [agent.communicate(timeout=240) for agent in agents]
    assert done < 40
    assert [agent.returncode for agent in agents] == [0, 0], outputs
    assert [int(row["epoch"]) for row in logged(tmp_path / FOLDER)] == list(range(1, 41))


@namespaces
def test_where_one_host_is_gone_for_good_the_other_goes_on(tmp_path):
    with two_hosts() as hosts:
        agents = list(agents_of_two_hosts(hosts, tmp_path, "1:2", epochs=30))
        wait_for_epochs(tmp_path / FOLDER, 3, agents[0])
        kill_all_of(hosts[1])
        done = len(logged(tmp_path / FOLDER))
        output, errors = agents[0].communicate(timeout=240)
    assert done < 30
    assert agents[0].returncode == 0, errors
    assert "another process was lost; --resume auto goes on from the last state" in errors
    assert "resumed after epoch" in output
    assert [int(row["epoch"]) for row in logged(tmp_path / FOLDER)] == list(range(1, 31))
