"""Regenerate the committed modules beside the .proto files; the drift test calls ``generate`` and compares.

Modules are made per .proto file: ``_pb2.py`` and ``_pb2.pyi`` always, ``_pb2_grpc.py`` and ``_pb2_grpc.pyi`` only
where the file declares a service.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

PROTO_ROOT = Path(__file__).resolve().parents[1] / "proto"
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


class ProtocFailed(Exception):
    """protoc refused the input; it has printed why."""


def generated_files(root: Path) -> dict[Path, bytes]:
    """Every generated module below ``root``, by its path relative to ``root``."""
    return {path.relative_to(root): path.read_bytes() for pattern in GENERATED for path in root.rglob(pattern)}


def generate(root: Path, out: Path) -> None:
    """Write the modules of every .proto file below ``root`` into ``out``, which exists. Raises ProtocFailed."""
    sources = sorted(str(path.relative_to(root)) for path in root.rglob("*.proto"))
    if not sources:
        return
    with tempfile.NamedTemporaryFile(suffix=".binpb") as descriptors:
        _protoc(root, [f"--descriptor_set_out={descriptors.name}"], sources)
        described = FileDescriptorSet.FromString(Path(descriptors.name).read_bytes())
    with_services = sorted(file.name for file in described.file if file.service)
    _protoc(root, [f"--python_out={out}", f"--mypy_out=quiet:{out}"], sources)
    if with_services:
        _protoc(root, [f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}"], with_services)


def _protoc(root: Path, outputs: list[str], sources: list[str]) -> None:
    beside_python = Path(sys.executable).parent
    plugins = [f"--plugin={name}={beside_python / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    well_known = str(files("grpc_tools") / "_proto")
    if protoc.main(["protoc", f"-I{root}", f"-I{well_known}", *plugins, *outputs, *sources]) != 0:
        raise ProtocFailed(f"protoc failed for {', '.join(sources)}")


def main() -> None:
    """Replace the committed modules; those whose .proto file or service is gone go too."""
    with tempfile.TemporaryDirectory() as folder:
        generate(PROTO_ROOT, Path(folder))
        fresh = generated_files(Path(folder))
    for stale in generated_files(PROTO_ROOT).keys() - fresh.keys():
        (PROTO_ROOT / stale).unlink()
    for path, content in fresh.items():
        (PROTO_ROOT / path).write_bytes(content)
    print(f"{len(fresh)} modules written below {PROTO_ROOT}")


if __name__ == "__main__":
    main()
