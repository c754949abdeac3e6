"""vLLM's routes: what is answered where, and in which order it is checked."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.vllm_double.faults import Faults, Options
from tests.vllm_double.loras import Lora, Loras, NotFoundThere, Refused
from tests.vllm_double.shapes import card, error
from tests.vllm_double.writing import Asked, Writer

_DEAD = "The server had an error while processing your request."
_FULL = (
    "The engine is currently busy and cannot accept new requests. Please try again later or on a "
    "different instance."
)


class Load(BaseModel):
    """A LoadLoRAAdapterRequest."""

    lora_name: str
    lora_path: str
    load_inplace: bool = False
    is_3d_lora_weight: bool = False


class Unload(BaseModel):
    """An UnloadLoRAAdapterRequest."""

    lora_name: str
    lora_int_id: int | None = None


class Tokenize(BaseModel):
    """The chat form of a TokenizeRequest."""

    messages: list[dict[str, Any]]
    model: str | None = None


def make_app(options: Options, faults: Faults, loras: Loras, writer: Writer) -> FastAPI:
    """Build the application of one process."""
    app = FastAPI()
    app.add_middleware(_Door, key=options.api_key)
    app.exception_handler(RequestValidationError)(_invalid)

    @app.get("/health")
    async def health() -> Response:
        return Response(status_code=503 if faults.dead else 200)

    @app.get("/version")
    async def version() -> dict[str, str]:
        return {"version": "0.33.0"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        base = card(options.served_name, options.root, None, options.max_model_len)
        adapters = [
            card(lora.name, lora.path, options.served_name, None) for lora in loras.by_name.values()
        ]
        return {"object": "list", "data": [base, *adapters]}

    @app.post("/tokenize")
    async def tokenize(asked: Tokenize) -> dict[str, Any]:
        ids = writer.read(Asked(messages=asked.messages))
        length = options.max_model_len
        return {"count": len(ids), "max_model_len": length, "tokens": ids, "token_strs": None}

    @app.post("/v1/chat/completions", response_model=None)
    async def complete(asked: Asked) -> Response:
        return await _complete(asked, options, faults, loras, writer)

    if options.runtime_loras:
        _add_lora_routes(app, options, faults, loras)
    return app


def _add_lora_routes(app: FastAPI, options: Options, faults: Faults, loras: Loras) -> None:
    @app.post("/v1/load_lora_adapter", response_model=None)
    async def load(asked: Load) -> Response:
        name, path = asked.lora_name, asked.lora_path
        if fault := _unloadable(asked, options, loras):
            return error(fault, "InvalidUserInput", 400)
        try:
            if faults.dead:
                raise Refused("EngineCore encountered an issue. See stack trace (above).")
            await loras.load(name, path)
        except NotFoundThere:
            said = f"Loading lora {name} failed: No adapter found for {path}"
            return error(said, "NotFoundError", 404)
        except Refused as refused:
            said = f"Call to add_lora method failed: {refused}"
            return error(said, "InternalServerError", 500)
        return Response(f"Success: LoRA adapter '{name}' added successfully.")

    @app.post("/v1/unload_lora_adapter", response_model=None)
    async def unload(asked: Unload) -> Response:
        name = asked.lora_name
        if not name:
            said = "'lora_name' needs to be provided to unload a LoRA adapter."
            return error(said, "InvalidUserInput", 400)
        if name not in loras.by_name:
            said = f"The lora adapter '{name}' cannot be found."
            return error(said, "NotFoundError", 404)
        del loras.by_name[name]
        return Response(f"Success: LoRA adapter '{name}' removed successfully.")


def _unloadable(asked: Load, options: Options, loras: Loras) -> str:
    if not asked.lora_name or not asked.lora_path:
        return "Both 'lora_name' and 'lora_path' must be provided."
    if asked.lora_name == options.served_name:
        return f"The lora adapter '{asked.lora_name}' conflicts with a served base model."
    if asked.lora_name in loras.by_name and not asked.load_inplace:
        return (
            f"The lora adapter '{asked.lora_name}' has already been loaded. If you want to load "
            "the adapter in place, set 'load_inplace' to True."
        )
    return ""


async def _complete(
    asked: Asked, options: Options, faults: Faults, loras: Loras, writer: Writer
) -> Response:
    writer.seen.append(asked.model_dump(exclude_unset=True))
    lora = loras.by_name.get(asked.model or "")
    if refused := _refused(asked, lora, options, faults):
        return refused
    try:
        ids = writer.read(asked)
        if lora is not None:
            await loras.activate(lora)
    except ValueError as wrong:
        return error(str(wrong), "BadRequestError", 400, "input_tokens")
    except (NotFoundThere, Refused):  # it reads weights in the middle of a step, and dies of it
        faults.dead = True
        return error(_DEAD, "InternalServerError", 500)
    if asked.stream:
        return StreamingResponse(writer.stream(asked, ids, lora), media_type="text/event-stream")
    return JSONResponse(await writer.whole(asked, ids, lora))


def _refused(
    asked: Asked, lora: Lora | None, options: Options, faults: Faults
) -> JSONResponse | None:
    base = not asked.model or options.skip_name_validation or asked.model == options.served_name
    if lora is None and not base:
        said = f"The model `{asked.model}` does not exist. Valid aliases: {options.served_name}."
        return error(said, "NotFoundError", 404, "model")
    if faults.dead:
        return error(_DEAD, "InternalServerError", 500)
    if faults.full:
        faults.full -= 1
        return error(_FULL, "Service Unavailable", 503)
    return None


class _Door:
    """Ask for the key as vLLM does: under /v1 only, and in one word."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = self._key and scope["type"] == "http" and scope["path"].startswith("/v1")
        if guarded and Headers(scope=scope).get("authorization") != f"Bearer {self._key}":
            refusal = JSONResponse({"error": "Unauthorized"}, status_code=401)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _invalid(_: Request, fault: Any) -> JSONResponse:
    errors = fault.errors()
    param = ".".join(str(part) for part in errors[0]["loc"])
    lines = "".join(f"  {one}\n" for one in errors).rstrip()
    plural = "error" if len(errors) == 1 else "errors"
    said = f"{len(errors)} validation {plural}:\n{lines}"
    return error(said, "Bad Request", 400, param)
