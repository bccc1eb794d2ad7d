"""Train an AuxResNet by multi-way backpropagation and save one model per exit.

python main.py                                    # AuxResNet-26-2/10 on CIFAR10
python main.py --data DIGITS                      # half a minute on two cores, no download
python main.py --depth 56 --batchsize 256 --nGPU 4 --nThreads 8 --shareGradInput true --data CIFAR100
"""

import sys
from collections.abc import Sequence

import opts
from models import names
from system import world
from system.errors import one_line_errors


def main(argv: Sequence[str]) -> None:
    """Parse, build, loop over the epochs, save one model per exit."""
    options = opts.parse(argv)
    configuration = names.of_options(vars(options))

    from training.run import started  # imports PyTorch, which --help and mistakes need not wait for

    with world.joined():
        with started(options, configuration) as run:
            for epoch in range(run.state.epochs_done, options.nEpochs):
                trained = run.train(epoch)
                evaluated = run.evaluate(epoch)
                run.save(epoch, trained, evaluated)
            errors = run.finish()
        run.report(errors)  # now that the run is over, and its folder free


if __name__ == "__main__":
    with one_line_errors(f"main.py{world.place_in_words()}", outlives_output=True):
        main(sys.argv[1:])
