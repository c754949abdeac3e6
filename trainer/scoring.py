"""Log-probabilities under base, live and candidate: what a model thinks of given text.

`Systems` holds the one model and switches its adapter on or off. Batches are left-padded, so that
the tokens asked about are the last ones of every row and only their logits are computed. Does not
know what the figures mean (see figures) nor how replies are drawn (see sampling).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F

from trainer.cache import pass_beginning

System = Literal["base", "live", "candidate"]
LOGIT_TOKENS = 768
"""Most tokens whose whole-vocabulary logits are held at once."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A prompt and its reply; `reply_ids` has an end token only if the reply was complete."""

    prompt_ids: list[int]
    reply_ids: list[int]


class Texts:
    """Turns chats and replies into token ids as the model's own template writes them."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.end_id = int(tokenizer.eos_token_id)

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Return a chat's ids up to its reply; too long a chat loses its oldest tokens."""
        ids = self.tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, return_dict=True
        )["input_ids"]
        return list(ids[-self.max_length :])

    def plain(self, text: str) -> list[int]:
        """Return a text's ids, no special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def reply(self, text: str, *, complete: bool) -> list[int]:
        """Return a reply's ids; an end token follows only if no limit cut the reply."""
        ids = self.plain(text)[: self.max_length]
        return [*ids, self.end_id] if complete or not ids else ids

    def read(self, ids: Sequence[int]) -> str:
        """Return the text of a reply's ids."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


class Systems:
    """The one model in memory as three: adapter off, live adapter, candidate adapter.

    Use from one thread. `model` is a `peft.PeftModel` whose active adapter is the candidate.
    """

    def __init__(self, model: Any, live: str | None = None) -> None:
        self.model = model
        self.names: tuple[System, ...] = (
            ("base", "live", "candidate") if live else ("base", "candidate")
        )
        self._adapters = {"live": live, "candidate": str(model.active_adapter)}
        self.device = next(model.parameters()).device

    @contextmanager
    def using(self, system: System) -> Iterator[Any]:
        """Yield the causal model speaking as `system`, without gradients; then the candidate."""
        own, causal = self._adapters["candidate"], self.model.get_base_model()
        with torch.inference_mode(), contiguous_head(causal):
            if system != "base":
                self.model.set_adapter(self._adapters[system])
            try:
                with self.model.disable_adapter() if system == "base" else nullcontext():
                    yield causal
            finally:
                if system == "live":
                    self.model.set_adapter(own)


@contextmanager
def in_base_type(model: Any) -> Iterator[None]:
    """Hold a PeftModel's adapters in the type its base computes in while open.

    All that goes through weights of another type is converted, twice a layer.
    """
    weights = [weight for name, weight in model.named_parameters() if "lora_" in name]
    exact, dtype = [weight.data for weight in weights], model.get_base_model().dtype
    for weight in weights:
        weight.data = weight.data.to(dtype)
    try:
        yield
    finally:
        for weight, data in zip(weights, exact, strict=True):
            weight.data = data


@contextmanager
def contiguous_head(causal: Any) -> Iterator[None]:
    """Give the head whole tensors while open.

    Without this its product over the last positions only (a view) copies the whole head once for
    every row: 56 MB each for the default model.
    """
    hook = causal.get_output_embeddings().register_forward_pre_hook(_contiguous)
    try:
        yield
    finally:
        hook.remove()


def _contiguous(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in inputs)


def batches_by_length(lengths: Sequence[int], budget: int, most: int = 16) -> list[list[int]]:
    """Group the places of `lengths`, longest first, so that rows × longest stays within
    `budget`."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    groups: list[list[int]] = []
    for place in order:
        group = groups[-1] if groups else None
        if group and len(group) < most and (len(group) + 1) * max(1, lengths[group[0]]) <= budget:
            group.append(place)
        else:
            groups.append([place])
    return groups


def left_padded(rows: Sequence[Sequence[int]], device: torch.device) -> dict[str, torch.Tensor]:
    """Return `input_ids`, `attention_mask` and `position_ids`, (B, T) each, padded on the left with
    0."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def reply_logits(causal: Any, rows: Sequence[Scored], device: torch.device) -> torch.Tensor:
    """Return logits (B, K, vocab) of each row's last K tokens, K the longest reply."""
    longest = max(len(row.reply_ids) for row in rows)
    before, going_on = pass_beginning(causal, [row.prompt_ids for row in rows])
    inputs = left_padded([(row.prompt_ids + row.reply_ids)[before:] for row in rows], device)
    mask = F.pad(inputs["attention_mask"], (before, 0), value=1)
    inputs |= {"attention_mask": mask, "position_ids": inputs["position_ids"] + before}
    told = {"logits_to_keep": longest + 1, **going_on(*mask.shape)}
    logits = causal(**inputs, **told).logits  # (B, K + 1, vocab)
    return logits[:, :-1]  # type: ignore[no-any-return]


def reply_logprobs(systems: Systems, system: System, rows: Sequence[Scored]) -> list[float]:
    """Return log p(reply | prompt) of each row: the sum over reply tokens only, in nats."""
    out = [0.0] * len(rows)
    with systems.using(system) as causal:
        for group in batches_by_length([len(row.reply_ids) for row in rows], LOGIT_TOKENS):
            batch = [rows[i] for i in group]
            logits = reply_logits(causal, batch, systems.device)
            for place, row, row_logits in zip(group, batch, logits, strict=True):
                out[place] = -float(_nll(row_logits[-len(row.reply_ids) :], row.reply_ids).sum())
    return out


def _nll(logits: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    """Return −log p of each token, (T,) float32, nats, from logits (T, vocab)."""
    target = torch.tensor(ids, device=logits.device)
    return F.cross_entropy(logits.float(), target, reduction="none")


def perplexity(systems: Systems, system: System, texts_ids: Sequence[Sequence[int]]) -> float:
    """Return exp(mean nats a token) over all texts, each text's first token only as context."""
    rows = [Scored(list(ids[:1]), list(ids[1:])) for ids in texts_ids if len(ids) > 1]
    tokens = sum(len(row.reply_ids) for row in rows)
    return math.exp(-sum(reply_logprobs(systems, system, rows)) / tokens)


def kl_to_base(
    systems: Systems,
    system: System,
    rows: Sequence[Scored],
    on_batch: Callable[[float], None] = lambda fraction: None,
) -> float:
    """Return the forward KL from the base: mean over reply tokens of Σ_v
    p_base(v)·log(p_base(v)/p(v)).

    Over the whole vocabulary at temperature 1, in nats a token, on replies the base wrote itself
    (`rows`), prompts masked out. 0 for the base.
    """
    if system == "base" or not rows:
        return 0.0
    total, tokens = 0.0, sum(len(row.reply_ids) for row in rows)
    groups = batches_by_length([len(row.reply_ids) for row in rows], LOGIT_TOKENS // 2)
    for done, group in enumerate(groups, start=1):
        batch = [rows[i] for i in group]
        with systems.using("base") as causal:
            base = reply_logits(causal, batch, systems.device)
        with systems.using(system) as causal:
            own = reply_logits(causal, batch, systems.device)
        for row, base_row, own_row in zip(batch, base, own, strict=True):
            n = len(row.reply_ids)
            p_base = F.log_softmax(base_row[-n:].float(), dim=-1)  # (n, vocab)
            p_own = F.log_softmax(own_row[-n:].float(), dim=-1)
            total += float(F.kl_div(p_own, p_base, reduction="sum", log_target=True))
        on_batch(done / len(groups))
    return total / tokens
