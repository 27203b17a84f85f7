"""What a file is that is not what a command asked for, told by its first bytes."""

from pathlib import Path
from typing import Literal

_PYTORCH = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"\x80\x8a")
_HEAD = 512  # Bytes to look at.


def absent(path: Path) -> str:
    """Why there is no file at `path`, and what to do, as the end of a sentence."""
    if path.is_dir():
        return "that is a folder; name the file in it"
    return "check the path"


def instead(path: Path, expected: Literal["safetensors", "torch"]) -> str:
    """What a file that cannot be read is, and what to do, as a part of a sentence.

    Where its first bytes are unknown, or of what was expected, it may be cut short.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "it is empty: copy it again"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS: fetch the file itself with git lfs pull"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "it is a web page: download the file itself"
    if expected != "torch" and head.startswith(_PYTORCH):
        return "it is a file of PyTorch: turn it into a weight file with python -m ssmjax.convert"
    if expected != "safetensors" and head[8:9] == b"{" and head[4:8] == bytes(4):
        return "it is a safetensors file: name it so"
    if _is_text(head):
        return "it is a text: name the file with the weights"
    return "it may be cut short: copy it again"


def _is_text(head: bytes) -> bool:
    if any(byte < 32 and byte not in b"\t\n\r" for byte in head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > _HEAD - 4  # A letter cut in two.
    return True
