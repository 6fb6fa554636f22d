"""The committed protobuf modules are what the .proto files generate today."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.proto import PROTO_ROOT, ProtocFailed, generate, generated_files

SAMPLE = """
edition = "2023";
package sample.v1;
message Ping { string text = 1; }
"""
SERVICE = "service Echo { rpc Say(Ping) returns (Ping); }\n"


def drift(root: Path, scratch: Path) -> set[str]:
    """Paths of generated modules below ``root`` that are stale, missing or not made by any .proto file."""
    scratch.mkdir()
    generate(root, scratch)
    fresh, committed = generated_files(scratch), generated_files(root)
    return {str(path) for path in fresh.keys() | committed.keys() if fresh.get(path) != committed.get(path)}


def test_committed_modules_are_up_to_date(tmp_path: Path) -> None:
    assert drift(PROTO_ROOT, tmp_path / "fresh") == set(), "run: make proto"


def test_drift_is_seen(tmp_path: Path) -> None:
    root = tmp_path / "proto"
    (root / "sample/v1").mkdir(parents=True)
    source = root / "sample/v1/sample.proto"
    source.write_text(SAMPLE)
    generate(root, root)
    assert drift(root, tmp_path / "same") == set()

    source.write_text(SAMPLE.replace("text", "words"))
    assert drift(root, tmp_path / "renamed") == {"sample/v1/sample_pb2.py", "sample/v1/sample_pb2.pyi"}

    source.write_text(SAMPLE + SERVICE)
    assert drift(root, tmp_path / "service") == {
        "sample/v1/sample_pb2.py",
        "sample/v1/sample_pb2_grpc.py",
        "sample/v1/sample_pb2_grpc.pyi",
    }

    source.unlink()
    assert drift(root, tmp_path / "gone") == {"sample/v1/sample_pb2.py", "sample/v1/sample_pb2.pyi"}


def test_broken_proto_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.proto").write_text('edition = "2023"; message {')
    with pytest.raises(ProtocFailed):
        generate(tmp_path, tmp_path)
