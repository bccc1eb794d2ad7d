"""Muon: steps of orthogonalised momentum, for the kernels of convolutions.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. Each kernel, as a matrix of outputs by
inputs and places, moves by the orthogonal matrix nearest to its momentum, so that all directions learn at one speed. A
factor for the shape of the matrix, which other descriptions have, is left out: it would be 1 for most kernels.

`torch.optim.Muon` takes matrices only, one after another; here kernels of one shape are computed together, and several
processes share the work.
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from system import world

RATE = 0.25  # the length of Muon's step, in learning rates of SGD
DECAY = 25  # its weight decay, in weight decays of SGD; its steps do not shrink with the gradient, so it needs more
ROUNDS = {torch.float32: (5,), torch.bfloat16: (3, 2)}  # iterations, by the precision of the arithmetic
QUINTIC = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration: singular values go to 0.7 … 1.2


def orthogonalised(matrices: Tensor) -> Tensor:
    """B×R×C matrices, R ≤ C, float32 or bfloat16 -> the nearest with orthonormal rows, to within some 20 %.

    The quintic iteration X ← (a + b·XXᵀ + c·(XXᵀ)²) X is a product of polynomials in the first XXᵀ; kept at R×R, it
    costs a fraction of what it would at R×C. In bfloat16 the rounding of XXᵀ, which each iteration multiplies, is as
    large as its smallest eigenvalues; after three iterations it is computed anew, before singular values of 2 to 8
    come of it.
    """
    matrices = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    for iterations in ROUNDS[matrices.dtype]:
        matrices = _polynomial(matrices @ matrices.mT, iterations) @ matrices
    return matrices


def _polynomial(gram: Tensor, iterations: int) -> Tensor:
    """The product of the factors of so many iterations, all of them polynomials in the first XXᵀ; B×R×R -> B×R×R."""
    a, b, c = QUINTIC
    identity = torch.eye(gram.shape[1], device=gram.device, dtype=gram.dtype).expand_as(gram)
    product = None
    for left in reversed(range(iterations)):
        factor = torch.baddbmm(a * identity + b * gram, gram, gram, alpha=c)
        product = factor if product is None else factor @ product
        if left:
            gram = factor @ gram @ factor
    return product


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay; its parameters are kernels, outputs first.

    `lr` and `weight_decay` are on the scale of SGD's, so that one learning rate does for both. Steps are
    orthogonalised in `dtype`, float32 or bfloat16; momentum and weights stay as they are.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient. Of several processes each orthogonalises the steps of some."""
        for group in self.param_groups:
            kernels = [parameter for parameter in group["params"] if parameter.grad is not None]
            self._move_momenta(kernels, group["momentum"])
            steps = world.divided(kernels, _cost, partial(self._steps, momentum=group["momentum"]), self.dtype)
            torch._foreach_mul_(kernels, 1 - RATE * group["lr"] * DECAY * group["weight_decay"])
            torch._foreach_add_(kernels, steps, alpha=-RATE * group["lr"])

    def _move_momenta(self, kernels: list[Tensor], momentum: float) -> None:
        for kernel in kernels:
            if not self.state[kernel]:
                self.state[kernel]["momentum"] = torch.zeros_like(kernel)
        momenta = [self.state[kernel]["momentum"] for kernel in kernels]
        torch._foreach_mul_(momenta, momentum)
        torch._foreach_add_(momenta, [kernel.grad for kernel in kernels])

    def _steps(self, kernels: list[Tensor], momentum: float) -> list[Tensor]:
        """The orthogonal steps of kernels; those of one shape are computed together."""
        alike = defaultdict(list)
        for number, kernel in enumerate(kernels):
            alike[kernel.shape].append(number)
        steps = [None] * len(kernels)
        for numbers in alike.values():
            found = self._steps_of_one_shape([kernels[number] for number in numbers], momentum)
            for number, step in zip(numbers, found, strict=True):
                steps[number] = step
        return steps

    def _steps_of_one_shape(self, kernels: list[Tensor], momentum: float) -> tuple[Tensor, ...]:
        momenta = [self.state[kernel]["momentum"] for kernel in kernels]
        wanted = torch._foreach_add([kernel.grad for kernel in kernels], momenta, alpha=momentum)
        rows = [direction.movedim(1, -1).flatten(1) for direction in wanted]  # views, as kernels are channels last
        matrices = torch.stack([row.to(self.dtype) for row in rows])
        tall = matrices.shape[1] > matrices.shape[2]
        steps = orthogonalised(matrices.mT).mT if tall else orthogonalised(matrices)
        outputs, inputs, *places = kernels[0].shape
        return steps.reshape(len(kernels), outputs, *places, inputs).movedim(-1, 2).unbind()


def _cost(kernel: Tensor) -> int:
    """About how many multiply-adds its step takes: products of R×C and of R×R matrices, R ≤ C."""
    rows, columns = sorted((len(kernel), kernel[0].numel()))
    return rows**2 * (2 * columns + 15 * rows)
