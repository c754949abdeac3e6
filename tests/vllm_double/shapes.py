"""vLLM's bodies, field by field, in its order."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

from fastapi.responses import JSONResponse


def error_body(message: str, kind: str, code: int, param: str | None = None) -> dict[str, Any]:
    """Return an ErrorResponse."""
    said = sanitized(message)
    return {"error": {"message": said, "type": kind, "param": param, "code": code}}


def error(message: str, kind: str, code: int, param: str | None = None) -> JSONResponse:
    """Return it as an answer."""
    return JSONResponse(error_body(message, kind, code, param), status_code=code)


def sanitized(message: str) -> str:
    """Hide paths as vLLM's own errors do."""
    message = re.sub(r"/(?:home|usr|opt|var|tmp|root|lib|mnt|srv)(?:/[\w.\-]+)+", "<path>", message)
    return re.sub(r"(?:/[\w\-]+)+/[\w\-]+\.\w+", "<path>", message).strip()


def card(name: str, root: str, parent: str | None, length: int | None) -> dict[str, Any]:
    """Return a ModelCard."""
    now = int(time.time())
    permission = {
        "id": f"modelperm-{uuid.uuid4().hex}", "object": "model_permission", "created": now,
        "allow_create_engine": False, "allow_sampling": True, "allow_logprobs": True,
        "allow_search_indices": False, "allow_view": True, "allow_fine_tuning": False,
        "organization": "*", "group": None, "is_blocking": False,
    }  # fmt: skip
    return {
        "id": name, "object": "model", "created": now, "owned_by": "vllm", "root": root,
        "parent": parent, "max_model_len": length, "permission": [permission],
    }  # fmt: skip


def usage(prompt: int, written: int) -> dict[str, Any]:
    """Return the UsageInfo of a stream."""
    return {
        "prompt_tokens": prompt, "total_tokens": prompt + written, "completion_tokens": written,
    }  # fmt: skip


def logprobs(tokens: list[str], values: list[float]) -> dict[str, Any]:
    """Return ChatCompletionLogProbs without alternatives."""
    return {
        "content": [
            {"token": token, "logprob": value, "bytes": list(token.encode()), "top_logprobs": []}
            for token, value in zip(tokens, values, strict=True)
        ]
    }


class Chunks:
    """The chunks of one streamed completion."""

    def __init__(self, model: str, *, with_ids: bool) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self._model, self._with_ids = model, with_ids
        self._created = int(time.time())

    def opening(self, prompt_ids: list[int]) -> dict[str, Any]:
        """Return the first chunk, which bears the role and the prompt."""
        choice = self._choice({"role": "assistant", "content": ""}, None)
        return {
            **self._head(),
            "choices": [choice],
            "prompt_token_ids": prompt_ids if self._with_ids else None,
            "prompt_text": None,
        }

    def piece(self, text: str, ids: list[int]) -> dict[str, Any]:
        """Return a chunk of text."""
        choice = self._choice({"content": text}, None)
        choice["token_ids"] = ids if self._with_ids else None
        return {**self._head(), "choices": [choice], "kv_transfer_params": None}

    def last(self, ids: list[int], reason: str) -> dict[str, Any]:
        """Return the chunk that says why it ends."""
        choice = self._choice({"content": ""}, reason)
        choice |= {
            "stop_reason": None,
            "token_ids": ids if self._with_ids else None,
            "weight_versions": None,
        }
        return {**self._head(), "choices": [choice], "kv_transfer_params": None}

    def counts(self, prompt: int, written: int, fingerprint: str) -> dict[str, Any]:
        """Return the chunk with the counts; it has no choices."""
        told = usage(prompt, written)
        return {**self._head(), "choices": [], "usage": told, "system_fingerprint": fingerprint}

    def _head(self) -> dict[str, Any]:
        return {
            "id": self.id, "object": "chat.completion.chunk", "created": self._created,
            "model": self._model,
        }  # fmt: skip

    @staticmethod
    def _choice(delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def whole(chunks: Chunks, written: dict[str, Any]) -> dict[str, Any]:
    """Return a completion that is not streamed; `written` has text, reason, ids and counts."""
    with_ids = chunks._with_ids
    message = {
        "role": "assistant", "content": written["text"], "refusal": None, "annotations": None,
        "audio": None, "function_call": None, "reasoning": None,
    }  # fmt: skip
    choice = {
        "index": 0, "message": message, "logprobs": written["logprobs"],
        "finish_reason": written["reason"],
        "stop_reason": None, "token_ids": written["ids"] if with_ids else None,
        "routed_experts": None, "weight_versions": None,
    }  # fmt: skip
    counted = usage(len(written["prompt_ids"]), len(written["ids"]))
    return {
        **chunks._head(), "object": "chat.completion", "choices": [choice], "service_tier": None,
        "system_fingerprint": written["fingerprint"],
        "usage": {**counted, "prompt_tokens_details": None, "completion_tokens_details": None},
        "prompt_logprobs": None,
        "prompt_token_ids": written["prompt_ids"] if with_ids else None, "prompt_text": None,
        "kv_transfer_params": None, "ec_transfer_params": None, "metrics": None,
    }  # fmt: skip
