"""Publish a job's adapter: copy its content files with a manifest, at once or not at all.

A published directory is immutable: publishing the same content again changes nothing, other content
under the same name is refused. Format: docs/adapter-manifest.md. Knows no torch.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from core.errors import AdapterRefused, Conflict
from core.files import publish_directory
from core.jobs import ADAPTER
from core.manifest import (
    CONTENT_FILES,
    MANIFEST,
    Manifest,
    describe_directory,
    read_manifest,
    verify_content,
)


def publish_adapter(
    job_directory: Path,
    target: Path,
    *,
    name: str,
    base_model: str,
    base_sha256: str,
    run_id: str,
    recipe: str,
    created_at: str,
) -> Manifest:
    """Publish `adapter/` of a finished job as `target` and return its manifest; idempotent.

    Raises AdapterRefused if the job has no whole adapter, or what lies at `target` is damaged, and
    Conflict if another adapter lies there.
    """
    source = job_directory / ADAPTER
    missing = [file for file in CONTENT_FILES if not (source / file).is_file()]
    if missing:
        raise AdapterRefused(f"{source}: no {' and no '.join(missing)}; the job has not finished")
    manifest = describe_directory(
        source,
        name=name,
        base_model=base_model,
        base_sha256=base_sha256,
        run_id=run_id,
        recipe=recipe,
        created_at=created_at,
    )

    def fill(temporary: Path) -> None:
        for file in CONTENT_FILES:
            shutil.copyfile(source / file, temporary / file)
        text = manifest.model_dump_json(indent=2) + "\n"
        (temporary / MANIFEST).write_text(text, encoding="utf-8")

    if not target.exists():
        publish_directory(target, fill)
        verify_content(target, manifest)
        return manifest
    return _already_published(target, manifest)


def _already_published(target: Path, manifest: Manifest) -> Manifest:
    there = read_manifest(target)
    verify_content(target, there)
    identity = there.name, there.base_sha256, there.sha256
    if identity != (manifest.name, manifest.base_sha256, manifest.sha256):
        raise Conflict(
            f"{target}: already holds {there.name} with SHA-256 {there.sha256}, not "
            f"{manifest.name} with {manifest.sha256}; published adapters "
            "never change, take the next version"
        )
    return there
