"""The differentiable parts of a decoder with LoRA, each as one function with its own gradient.

The base's weights are frozen, so their gradients are never formed, and little is kept for the way
back: the input as it came, and what A made of it. Formulas beside the code. Matrices are as
`nn.Linear` holds them: W (out, in), A (rank, in), B (out, rank), B already scaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.autograd.function import FunctionCtx

LOGIT_ROWS = 128
"""Rows of the vocabulary's logits held at once."""


class Entry(Protocol):
    """What happens to a product's input first; cheap enough to do again on the way back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is multiplied.  # (N, in)"""
        ...

    def backward(self, x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient of x, given that of `forward(x)`."""
        ...


class Plain:
    """The input as it is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def backward(self, x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


@dataclass(frozen=True, slots=True)
class Norm:
    """RMSNorm (Zhang and Sennrich 2019): x / sqrt(mean(x²) + ε) · weight, in float32."""

    weight: torch.Tensor  # (in,) float32
    epsilon: float

    def _unit(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return wide * scale, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self._unit(x)[0] * self.weight).to(x.dtype)

    def backward(self, x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        unit, scale = self._unit(x)
        inner = gradient.float() * self.weight
        return (scale * (inner - unit * (inner * unit).mean(-1, keepdim=True))).to(x.dtype)


@dataclass(frozen=True, slots=True)
class Gate:
    """The MLP's activation(gate) · up; x holds gate and up side by side.  # (N, 2 inner)"""

    gelu: bool

    def _activated(self, gate: torch.Tensor) -> torch.Tensor:
        if self.gelu:
            return torch.nn.functional.gelu(gate, approximate="tanh")
        return torch.nn.functional.silu(gate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, dim=-1)
        return self._activated(gate) * up

    def backward(self, x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, dim=-1)
        out = torch.empty_like(x)
        half = gate.shape[-1]
        torch.mul(gradient, self._activated(gate), out=out[:, half:])
        if self.gelu:
            out[:, :half] = torch.ops.aten.gelu_backward(gradient * up, gate, approximate="tanh")
        else:
            out[:, :half] = torch.ops.aten.silu_backward(gradient * up, gate)
        return out


@dataclass(frozen=True, slots=True)
class Linear:
    """A frozen linear layer, or several side by side; `sizes` are their outputs."""

    weight: torch.Tensor  # (out, in)
    bias: torch.Tensor | None
    sizes: tuple[int, ...]
    entry: Entry


class LoraProduct(torch.autograd.Function):
    """y = z Wᵀ + bias + (z Aᵀ) Bᵀ (+ residual), z = entry(x); each part of W with its own A and B.

    `a` holds the parts' A one below the other; none without an adapter.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        residual: torch.Tensor | None,
        linear: Linear,
        a: torch.Tensor | None,
        *b: torch.Tensor,
    ) -> torch.Tensor:
        """Return y.  # (N, out)"""
        z = linear.entry.forward(x)
        y = torch.nn.functional.linear(z, linear.weight, linear.bias)
        h = None
        if a is not None:
            h = z @ a.T  # (N, parts · rank)
            for (start, end), part, h_part in zip(
                _spans(linear.sizes), b, h.chunk(len(b), dim=-1), strict=True
            ):
                y[:, start:end].addmm_(h_part, part.T)
        if residual is not None:
            y += residual
        ctx.save_for_backward(x, h, a, *b)
        ctx.linear, ctx.has_residual = linear, residual is not None
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Return the gradients of x, residual, A and each B."""
        x, h, a, *b = ctx.saved_tensors
        linear: Linear = ctx.linear
        residual = gradient if ctx.has_residual else None
        need_x = ctx.needs_input_grad[0]
        dz = gradient @ linear.weight if need_x else None
        da, db = None, []
        if a is not None:
            parts = [gradient[:, start:end] for start, end in _spans(linear.sizes)]
            dh = torch.cat([part @ one for part, one in zip(parts, b, strict=True)], dim=-1)
            z = linear.entry.forward(x)
            da = dh.T @ z
            db = [part.T @ one for part, one in zip(parts, h.chunk(len(b), dim=-1), strict=True)]
            if dz is not None:
                dz.addmm_(dh, a)
        dx = linear.entry.backward(x, dz) if dz is not None else None
        return dx, residual, None, da, *db


class NormRows(torch.autograd.Function):
    """A norm by itself, before the head."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, norm: Norm) -> torch.Tensor:
        """Return the normalised rows.  # (N, in)"""
        ctx.save_for_backward(x)
        ctx.norm = norm
        return norm.forward(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Return the gradient of x."""
        (x,) = ctx.saved_tensors
        return ctx.norm.backward(x, gradient), None


def _spans(sizes: Sequence[int]) -> list[tuple[int, int]]:
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return list(zip([0, *ends], ends, strict=False))


class SpreadRows(torch.autograd.Function):
    """Lay distinct tokens out in padded rows: out[r, t] = x[table[r, t]].

    The way back adds up what came to a token in all rows it stands in.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: torch.Tensor,
        table: torch.Tensor,
        owner: torch.Tensor,
        again: torch.Tensor,
        again_token: torch.Tensor,
    ) -> torch.Tensor:
        """Return (R, T, width) of x (N, width)."""
        ctx.save_for_backward(owner, again, again_token)
        return x[table]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Return the gradient of x.  # (N, width)"""
        owner, again, again_token = ctx.saved_tensors
        flat = gradient.flatten(0, 1)
        dx = flat[owner]
        if len(again):
            dx.index_add_(0, again_token, flat[again])
        return dx, None, None, None, None


class TakeOwn(torch.autograd.Function):
    """Take each token's states from the row that owns it: out[n] = flat(x)[owner[n]]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
        """Return (N, width) of x (R, T, width)."""
        ctx.save_for_backward(owner)
        ctx.shape = x.shape
        return x.flatten(0, 1)[owner]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Return the gradient of x; places nobody owns get 0."""
        (owner,) = ctx.saved_tensors
        dx = gradient.new_zeros(ctx.shape)
        dx.flatten(0, 1)[owner] = gradient
        return dx, None


class TokenLogps(torch.autograd.Function):
    """log p(target) under softmax(x Wᵀ + bias), with what trainers like to print.

    The gradient, W[target] - Σ p W, is formed on the way there, while the logits are at hand.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        target: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return log p, entropy, mean logit (float32), and whether the target is likeliest.

        x  # (M, in); target, and each result  # (M,)
        """
        wanted = ctx.needs_input_grad[0]
        results, slopes = [], []
        for part, goal in zip(
            torch.split(x, LOGIT_ROWS), torch.split(target, LOGIT_ROWS), strict=True
        ):
            logits = torch.nn.functional.linear(part, weight, bias).float()  # (m, vocab)
            log_p = torch.log_softmax(logits, dim=-1)
            own = log_p.gather(-1, goal[:, None]).squeeze(-1)
            p = log_p.exp()
            entropy = -torch.einsum("mv,mv->m", p, log_p)
            top = log_p.amax(-1) == own
            results.append((own, entropy, logits.mean(-1), top))
            if wanted:
                slopes.append(weight[goal].float() - (p.to(weight.dtype) @ weight).float())
        if wanted:
            ctx.save_for_backward(torch.cat(slopes).to(x.dtype))
        own, entropy, mean, top = (torch.cat(kind) for kind in zip(*results, strict=True))
        ctx.mark_non_differentiable(entropy, mean, top)
        return own, entropy, mean, top

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *unused: Any) -> Any:
        """Return the gradient of x."""
        (slope,) = ctx.saved_tensors
        return (gradient[:, None] * slope).to(slope.dtype), None, None, None
