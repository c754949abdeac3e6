"""The model thread: it alone touches the model, step after step.

Between two steps it does what the event loop asked for, ends what is cancelled or late, and lets
waiting jobs join. A failing request ends with the reason "error" and the loop goes on; a failing
loop is reported once and the thread ends.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from core.errors import InvalidInput
from core.generation import FinishReason
from core.sections import ServingSettings
from serving.batch import Pass, Row, RunningBatch
from serving.decoders import Choice, make_batch
from serving.lora import linear_shapes
from serving.prompt import fit_prompt, room_for_prompt
from serving.reply import Job, Progress, Reply, unstarted_result
from serving.sampling import Sampler

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory with its tokenizer."""

    model: Any
    tokenizer: Any


class Worker:
    """Runs jobs on one model; `run` is the thread's body.

    `deliver` is called on the model thread, once after each step, with what came out of it.
    """

    def __init__(
        self,
        loaded: Loaded,
        settings: ServingSettings,
        *,
        clock: Callable[[], float],
        deliver: Callable[[list[Progress]], None],
    ) -> None:
        config = loaded.model.config.get_text_config()
        longest = getattr(config, "max_position_embeddings", None) or settings.max_context_tokens
        self.max_context = min(settings.max_context_tokens, longest)
        self.linears = linear_shapes(loaded.model)
        self.dtype: torch.dtype = loaded.model.dtype
        self.device: torch.device = loaded.model.device
        self.tokens_total = 0
        self._tokenizer = loaded.tokenizer
        self._end_tokens = _end_tokens(loaded)
        self._max_batch = settings.max_batch
        self._clock = clock
        self._deliver = deliver
        self.batch: RunningBatch = make_batch(
            loaded.model,
            Choice(settings.decoder, settings.quantization),
            rows=settings.max_batch + 1,  # one more: a warm-up never waits for a reply to end
            slots=self.max_context,
        )
        self._replies: dict[Row, Reply] = {}
        self._waiting: deque[Job] = deque()
        self._progress: list[Progress] = []
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._stopping = False

    # -- called from any thread

    def post(self, action: Callable[[], None]) -> None:
        """Have an action done on the model thread, between two steps."""
        with self._wake:
            self._inbox.append(action)
            self._wake.notify()

    def submit(self, job: Job) -> None:
        """Queue a job; an internal one goes first."""
        self.post(lambda: (self._waiting.appendleft if job.internal else self._waiting.append)(job))

    def stop(self) -> None:
        """End every job as cancelled, then the thread."""
        self.post(self._stop)

    @property
    def active(self) -> int:
        """How many replies have a place in the batch."""
        return len(self._replies)

    # -- the model thread

    def run(self) -> None:
        """Work until `stop`."""
        with torch.inference_mode():
            while not self._stopping:
                self._do_what_was_asked()
                self._end_cancelled_and_late()
                self._admit()
                for step in self.batch.passes():
                    self._run(step)
                self._flush()

    def _do_what_was_asked(self) -> None:
        """Take what is in the inbox; with nothing else to do, wait for it."""
        with self._wake:
            while not (self._inbox or self._replies or self._waiting):
                self._wake.wait()
            actions, self._inbox = self._inbox, deque()
        for action in actions:
            action()

    def _stop(self) -> None:
        self._stopping = True
        for row in list(self._replies):
            self._end(row, "cancelled")
        while self._waiting:
            self._end_unstarted(self._waiting.popleft(), "cancelled")
        self._flush()

    def _end_cancelled_and_late(self) -> None:
        now = self._clock()
        for row, reply in list(self._replies.items()):
            if (reason := _over(reply.job, now)) is not None:
                self._end(row, reason)
        if any(_over(job, now) for job in self._waiting):
            kept: deque[Job] = deque()
            for job in self._waiting:
                if (reason := _over(job, now)) is not None:
                    self._end_unstarted(job, reason)
                else:
                    kept.append(job)
            self._waiting = kept

    def _admit(self) -> None:
        while self._waiting and len(self._replies) < self._max_batch + self._waiting[0].internal:
            job = self._waiting.popleft()
            try:
                reply = self._begin(job)
            except InvalidInput as error:
                log.warning("a request cannot be answered: %s", error)
                self._end_unstarted(job, "error")
            except Exception:  # one request's fault must not end everyone's chat
                log.exception("a request failed before its first token")
                self._end_unstarted(job, "error")
            else:
                row = Row(
                    reply.prompt.token_ids,
                    job.adapter,
                    Sampler.seeded(job.request.sampling, job.seed),
                )
                self.batch.join(row)
                self._replies[row] = reply

    def _begin(self, job: Job) -> Reply:
        """Turn a job's messages into a prompt that leaves room for the reply."""
        request = job.request
        room = room_for_prompt(self.max_context, request.sampling.max_tokens)
        prompt = fit_prompt(self._tokenizer, request.messages, room)
        most = min(request.sampling.max_tokens, self.max_context - len(prompt.token_ids))
        return Reply(job, prompt, self._decode_text, self._end_tokens, most)

    def _decode_text(self, tokens: Iterable[int]) -> str:
        return str(
            self._tokenizer.decode(
                list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def _run(self, step: Pass) -> None:
        """Run a forward pass and hand its tokens out; if it fails, only its own rows end."""
        try:
            for row, token in step.run():
                self._take(row, token)
        except Exception:  # out of memory, for example: those that were not in this pass go on
            lost = [row for row in step.rows if row in self._replies]
            log.exception("a step failed; %d replies end with an error", len(lost))
            for row in lost:
                self._end(row, "error")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _take(self, row: Row, token: int | None) -> None:
        if token is None:
            log.error(
                "adapter %s gave logits that are not finite", self._replies[row].job.request.adapter
            )
            self._end(row, "error")
            return
        reply = self._replies[row]
        self.tokens_total += 0 if reply.job.internal else 1
        piece = reply.take(token, self._clock())
        if reply.ended is None:
            self._progress.append(Progress(reply.job, piece))
        else:
            self._leave(row, piece)

    def _end(self, row: Row, reason: FinishReason) -> None:
        self._leave(row, self._replies[row].end(reason))

    def _leave(self, row: Row, piece: str) -> None:
        reply = self._replies.pop(row)
        self.batch.leave(row, clear=reply.ended == "error")
        self._progress.append(Progress(reply.job, piece, reply.result(self._clock())))

    def _end_unstarted(self, job: Job, reason: FinishReason) -> None:
        self._progress.append(Progress(job, "", unstarted_result(job, reason, self._clock())))

    def _flush(self) -> None:
        if self._progress:
            progress, self._progress = self._progress, []
            self._deliver(progress)


def _over(job: Job, now: float) -> FinishReason | None:
    if job.cancelled:
        return "cancelled"
    return "deadline" if now >= job.deadline else None


def _end_tokens(loaded: Loaded) -> frozenset[int]:
    """Return the tokens that end a reply: the model's own and the tokenizer's."""
    configured = getattr(loaded.model.generation_config, "eos_token_id", None)
    tokens = configured if isinstance(configured, list) else [configured]
    return frozenset(t for t in [*tokens, loaded.tokenizer.eos_token_id] if t is not None)
