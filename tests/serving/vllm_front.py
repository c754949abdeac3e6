"""vLLM's own HTTP front end over the project's tiny engine, to hold the stand-in against.

Routes, bodies, errors, names and adapters' checks are vLLM's code; what is written comes from a
LocalEngine. Needs vLLM's Python files only, no GPU. Importing this imports vLLM.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"  # read when the routes are attached

from fastapi import FastAPI
from transformers import AutoTokenizer
from vllm.entrypoints.openai.chat_completion.api_router import attach_router as add_chat
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.models.api_router import attach_router as add_models
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
from vllm.entrypoints.serve.lora.api_router import attach_router as add_loras
from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware
from vllm.exceptions import LoRAAdapterNotFoundError, QueueOverflowError, VLLMValidationError
from vllm.inputs import tokens_input
from vllm.logprobs import Logprob
from vllm.lora.peft_helper import PEFTHelper
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind

from core.generation import BASE, GenerationRequest, Message, Sampling
from serving.engine import LocalEngine
from tests.vllm_double.faults import Options
from tests.vllm_double.loras import Lora, Loras
from tests.vllm_double.scoring import Scorer

LENGTH = 512
KEY = "secret"


class Client:
    """An EngineClient as far as the front end asks one."""

    errored = False
    input_processor = None

    def __init__(self, engine: LocalEngine, home: Path) -> None:
        place = str(engine.base.path)
        self.engine, self.full = engine, 0
        self._loras = Loras(engine, Options(), home)
        self._scorer = Scorer(engine.base.path)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(place)
        self.renderer = SimpleNamespace(tokenizer=self.tokenizer)
        self.vllm_config = SimpleNamespace(kv_transfer_config=None, compute_hash=lambda: "1a2b3c4d")
        self.model_config = SimpleNamespace(
            max_model_len=LENGTH, model=place, hf_config=SimpleNamespace(model_type="llama"),
            generation_config="vllm", override_generation_config={}, is_encoder_decoder=False,
            get_diff_sampling_param=dict,
        )  # fmt: skip

    def check_admission(self, _: int) -> None:
        """Refuse what the queue does not hold."""
        if self.full:
            self.full -= 1
            raise QueueOverflowError

    async def add_lora(self, request: Any) -> bool:
        """Check an adapter by vLLM's code; raise as its engine's process is heard to."""
        try:
            _checked(request)
        except Exception as error:  # whatever it is, the front end is told its words
            raise RuntimeError(f"Call to add_lora method failed: {error}") from error
        await self._loras.activate(self._lora(request))
        return True

    async def generate(
        self, prompt: Any, params: Any, request_id: str, lora_request: Any = None, **_: Any
    ) -> AsyncIterator[RequestOutput]:
        """Write, in deltas or at once."""
        ids, lora = prompt["prompt_token_ids"], self._lora(lora_request)
        drawn = Sampling(
            params.temperature, params.top_p, max(0, params.top_k), params.max_tokens, params.seed
        )
        request = GenerationRequest(prompt["chat"], lora.inside if lora else BASE, drawn)
        stream = self.engine.generate(request)
        try:
            if params.output_kind is RequestOutputKind.DELTA:
                async for text in stream:
                    yield _output(request_id, ids, text, [])
                done = await stream.result()
                yield _output(request_id, ids, "", list(done.token_ids), done.finish_reason)
                return
            done = await stream.result()
            drawn_ids = list(done.token_ids)
            scores = self._scorer.logprobs(lora, ids, drawn_ids)
            whole = _output(request_id, ids, done.text, drawn_ids, done.finish_reason)
            whole.outputs[0].logprobs = [
                {token: Logprob(score, 1, self.tokenizer.decode([token]))}
                for token, score in zip(drawn_ids, scores, strict=True)
            ]
            yield whole
        finally:
            stream.cancel()

    @staticmethod
    def _lora(request: Any) -> Any:
        return request and Lora(request.lora_name, request.lora_int_id, request.lora_path)


class Chat(OpenAIServingChat):  # type: ignore[misc]
    """vLLM's chat, rendered without its renderer, which wants a whole model configuration."""

    async def render_chat_request(self, request: Any) -> Any:
        """Check the name and the queue as vLLM does, then render."""
        if (fault := await self._check_model(request)) is not None:
            return fault
        self._preflight(1)
        chat = [dict(message) for message in request.messages]
        tokenizer = self.renderer.tokenizer
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        ids = tokenizer.encode(text, add_special_tokens=False)
        if len(ids) > LENGTH:
            raise VLLMValidationError("too long", parameter="input_tokens", value=len(ids))
        prompt: Any = tokens_input(ids)
        prompt["chat"] = tuple(Message(one["role"], one["content"]) for one in chat)
        return chat, [prompt]


def make_front(client: Client, name: str) -> FastAPI:
    """Build vLLM's application; it asks for KEY."""
    app = FastAPI()
    app.state.args = SimpleNamespace(log_error_stack=False, sse_keep_alive_interval=0)
    models = OpenAIServingModels(client, [BaseModelPath(name, client.model_config.model)])
    app.state.openai_serving_models = models
    app.state.openai_serving_chat = Chat(
        client, models, "assistant", online_renderer=SimpleNamespace(reasoning_effort_map=None),
        request_logger=None, chat_template=None, chat_template_content_format="auto",
    )  # fmt: skip
    init_exception_handler(app)
    for add in (add_models, add_chat, add_loras):
        add(app)
    app.add_middleware(AuthenticationMiddleware, tokens=[KEY])
    return app


def _checked(request: Any) -> None:
    try:
        helper = PEFTHelper.from_local_dir(request.lora_path, None)
    except FileNotFoundError as error:
        raise LoRAAdapterNotFoundError(request.lora_name, request.lora_path) from error
    helper.validate_legal(SimpleNamespace(max_lora_rank=Options.max_lora_rank))


def _output(
    request_id: str, prompt: list[int], text: str, ids: list[int], reason: str | None = None
) -> RequestOutput:
    written = CompletionOutput(0, text, ids, None, None, finish_reason=reason)
    return RequestOutput(request_id, None, prompt, None, [written], reason is not None)
