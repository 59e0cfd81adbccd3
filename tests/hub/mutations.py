"""Damaged and malicious snapshots by the thousand: ``python -m tests.hub.mutations FOLDER COUNT SEED [signed]``.

Runs in a process of its own, so that its memory can be watched and whatever code it runs be seen. Prints what became of each
mutant, as JSON. Mutants whose manifest was not made to fit must be refused or equal the original; ``signed`` ones are those of
an author who lies: their manifest fits.
"""

import json
import random
import shutil
import struct
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from learned_envs.errors import SnapshotError
from learned_envs.manifest import CONFIG, ENVIRONMENT, FIDELITY, MANIFEST, MODEL, STARTS, write_manifest
from learned_envs.snapshot import Snapshot, read_snapshot

Files = dict[str, bytes]
JSONS, TENSORS = (MANIFEST, CONFIG, FIDELITY), (MODEL, STARTS)
ALL = (MANIFEST, *ENVIRONMENT)
PICKLE = b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93\x8c\x05touch\x85R."
NUMBERS = (-1, 0, 1, 2, 3, 7, 2**20, 2**31, 2**63, 10**30, -(10**18), 0.5, -1e308, 1e-300)
_NOISE = 4 * 2**20  # bytes by which the interpreter's own memory comes and goes
ODD: tuple[Any, ...] = (
    *NUMBERS,
    *(None, True, False, "", "x", "1", "\ud800", "a" * 10_000, "../../etc/passwd", "__import__('os').system('id')"),
    *([], {}, [[]], [1, 2], {"a": 1}, {"__class__": "os.system"}, float("nan"), float("inf"), [0] * 5_000),
)


def mutate(files: Files, rng: random.Random, folder: Path) -> str:
    """Change a snapshot's files, or the folder at once. Returns what was done."""
    mutation = rng.choice(_MUTATIONS)
    return f"{mutation.__name__.strip('_')}: {mutation(files, rng, folder)}"


# Bytes


def _flip(files: Files, rng: random.Random, folder: Path) -> str:
    name = rng.choice(ALL)
    content = bytearray(files[name])
    for _ in range(rng.choice((1, 1, 1, 2, 8, 100))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    files[name] = bytes(content)
    return name


def _truncate(files: Files, rng: random.Random, _: Path) -> str:
    name = rng.choice(ALL)
    files[name] = files[name][: rng.choice((0, 1, 7, 8, 9, rng.randrange(len(files[name])), len(files[name]) - 1))]
    return name


def _extend(files: Files, rng: random.Random, _: Path) -> str:
    name = rng.choice(ALL)
    files[name] += rng.choice((b"\0", b"\n", b" ", b"}", PICKLE, rng.randbytes(100)))
    return name


def _swap(files: Files, rng: random.Random, _: Path) -> str:
    one, other = rng.sample(ALL, 2)
    files[one], files[other] = files[other], files[one]
    return f"{one} and {other}"


def _remove(files: Files, rng: random.Random, _: Path) -> str:
    name = rng.choice(ALL)
    del files[name]
    return name


def _replace(files: Files, rng: random.Random, _: Path) -> str:
    name = rng.choice(ALL)
    files[name] = rng.choice((PICKLE, b"PK\x03\x04", b"<!DOCTYPE html>", b"\0" * 64, b"[" * 50_000, rng.randbytes(200)))
    return name


# JSON


def _edit_field(files: Files, rng: random.Random, folder: Path) -> str:
    name = rng.choice(JSONS)
    content = json.loads(files[name])
    place, key, parent = _pick(content, rng)
    if parent is None:
        return f"{name}, which is empty"
    deed = rng.choice(("remove", "odd", "odd", "odd", "negate", "nest", "wrap", "rename"))
    value = parent[key]
    if deed == "remove":
        del parent[key]
    elif deed == "odd":
        parent[key] = rng.choice(ODD)
    elif deed == "negate":
        parent[key] = -value if isinstance(value, int | float) else [value]
    elif deed == "nest":
        for _ in range(rng.choice((1, 50, 500))):
            value = {"a": value}
        parent[key] = value
    elif deed == "wrap":
        parent[key] = str(value)
    elif isinstance(parent, dict):
        parent[rng.choice(("__reduce__", "colour", key.upper() + "_", "../x"))] = parent.pop(key)
    files[name] = json.dumps(content).encode()
    return f"{deed} {place} of {name}"


def _rename_in_manifest(files: Files, rng: random.Random, _: Path) -> str:
    content = json.loads(files[MANIFEST])
    old, new = (
        rng.choice(ENVIRONMENT),
        rng.choice(("../" + MODEL, "/etc/passwd", "a/../" + MODEL, "model.pkl", "", "\0")),
    )
    entry = content["files"][old] if rng.random() < 0.5 else content["files"].pop(old)
    content["files"][new] = entry
    files[MANIFEST] = json.dumps(content).encode()
    return f"{old} as {new!r}"


def _pick(content: Any, rng: random.Random) -> tuple[str, Any, Any]:
    """A random field of a tree: its place, its key, and what holds it."""
    places: list[tuple[str, Any, Any]] = []

    def walk(node: Any, place: str) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            places.append((f"{place}.{key}", key, node))
            walk(value, f"{place}.{key}")

    walk(content, "")
    return rng.choice(places) if places else ("", None, None)


# Tensors


def _edit_header(files: Files, rng: random.Random, _: Path) -> str:
    name = rng.choice(TENSORS)
    size = struct.unpack("<Q", files[name][:8])[0]
    header = json.loads(files[name][8 : 8 + size])
    place, key, parent = _pick(header, rng)
    deed = rng.choice(("odd", "remove", "length", "rename", "dtype", "shape", "offsets"))
    if deed == "odd":
        parent[key] = rng.choice(ODD)
    elif deed == "remove":
        del parent[key]
    elif deed in ("dtype", "shape", "offsets"):
        place = rng.choice([key for key in header if key != "__metadata__"])
        values = {
            "dtype": ("dtype", rng.choice(("F64", "F32", "I64", "BOOL", "U8", "BF16", "object"))),
            "shape": ("shape", rng.choice(([2**40], [2**32, 2**32], [-1], [], [0], [1] * 200))),
            "offsets": ("data_offsets", rng.choice(([0, 2**60], [8, 4], [-8, 0], [0, 0]))),
        }
        field, value = values[deed]
        header[place][field] = value
    elif deed == "rename":
        header["../" + place] = header.pop(next(iter(header)))
    text = json.dumps(header).encode()
    length = rng.choice((0, 2**63, 2**40, len(text) - 1)) if deed == "length" else len(text)
    files[name] = struct.pack("<Q", length) + text + files[name][8 + size :]
    return f"{deed} {place} of {name}"


def _poison(files: Files, rng: random.Random, _: Path) -> str:
    name = rng.choice(TENSORS)
    size = struct.unpack("<Q", files[name][:8])[0]
    start = 8 + size + 4 * rng.randrange(max(1, (len(files[name]) - size - 8) // 4 - 1))
    files[name] = files[name][:start] + rng.choice((b"\xff" * 4, b"\0\x7c\0\x7c", b"\0" * 4)) + files[name][start + 4 :]
    return f"at {start} of {name}"


# The folder


def _link(files: Files, rng: random.Random, folder: Path) -> str:
    name = rng.choice(ALL)
    content = files.pop(name)
    elsewhere = folder.parent / "elsewhere"
    elsewhere.write_bytes(content)
    target = rng.choice(
        ("/etc/passwd", "/dev/zero", "/dev/stdin", name, "..", ".", "nothing", str(elsewhere), "../elsewhere")
    )
    (folder / name).symlink_to(target)
    return f"{name} to {target}"


def _make_folder(files: Files, rng: random.Random, folder: Path) -> str:
    name = rng.choice(ALL)
    del files[name]
    (folder / name).mkdir()
    return name


def _add_stranger(files: Files, rng: random.Random, folder: Path) -> str:
    name = rng.choice(("model.pkl", "pytorch_model.bin", "__init__.py", "sitecustomize.py", "modeling.py", "README.md"))
    files[name] = rng.choice((PICKLE, b"raise SystemExit('code was run')", b"import os"))
    return name


_MUTATIONS: tuple[Callable[[Files, random.Random, Path], str], ...] = (
    *(_flip, _flip, _truncate, _extend, _swap, _remove, _replace),
    *(_edit_field, _edit_field, _edit_field, _edit_field, _rename_in_manifest),
    *(_edit_header, _edit_header, _poison, _link, _make_folder, _add_stranger),
)


# What becomes of them


class Watch:
    """Sees code that is run, and everything else that a reader has no business with, while it is on."""

    harmless = frozenset(("open", "os.listdir", "os.scandir", "object.__getattr__", "marshal.loads", "sys._getframe"))
    forbidden = ("pickle.", "subprocess.", "os.system", "os.exec", "os.spawn", "socket.", "ctypes.", "shutil.", "os.re")

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        self._known = {name.partition(".")[0] for name in sys.modules} | set(sys.stdlib_module_names)
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or event in self.harmless:
            return
        own_import = event == "import" and arguments[0].partition(".")[0] in self._known
        if event.startswith(self.forbidden) or (event == "import" and not own_import):
            self.seen.append(f"{event} {arguments!r:.200}")
        if event in ("exec", "compile") and "mutant" in repr(arguments):
            self.seen.append(f"{event} {arguments!r:.200}")


def main(folder: Path, count: int, seed: int, signed: bool) -> dict[str, Any]:
    """Make mutants and read them."""
    original = {name: (folder / name).read_bytes() for name in ALL}
    scratch = folder.parent / "mutant"
    before = _memory("VmSize")
    expected = read_snapshot(folder)
    for _ in range(3):
        read_snapshot(folder)
    peak = _memory("VmPeak")
    allowed = max(peak - before, _NOISE)  # beside as much again, which is in the peak: twice the original
    watch, fates, problems = Watch(), Counter[str](), []
    for index in range(count):
        rng = random.Random(f"{seed}/{index}")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        files = dict(original)
        deed = mutate(files, rng, scratch)
        for name, content in files.items():
            (scratch / name).write_bytes(content)
        if (
            signed
            and files.get(MANIFEST) == original[MANIFEST]
            and not any(path.is_symlink() for path in scratch.iterdir())
        ):
            _sign(scratch)
        watch.on = True
        fate = _read(scratch, expected, signed)
        watch.on = False
        fates[fate if len(fate) < 20 else "wrong"] += 1
        if len(fate) >= 20:
            problems.append(f"{index} {deed}: {fate}")
        problems += [f"{index} {deed}: ran {event}" for event in watch.seen]
        watch.seen.clear()
        if _memory("VmPeak") - peak > allowed:
            problems.append(
                f"{index} {deed}: took {_memory('VmPeak') - peak:,} bytes more than the original's {peak - before:,}"
            )
            peak = _memory("VmPeak")
    return {"fates": fates, "problems": problems}


def _sign(folder: Path) -> None:
    """Make the manifest fit whatever is there."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    try:
        write_manifest(folder)
    except ValueError:  # a file is missing: the manifest cannot fit
        (folder / MANIFEST).write_text(json.dumps(manifest))


def _read(folder: Path, expected: Snapshot, signed: bool) -> str:
    try:
        found = read_snapshot(folder)
        for kind in ("initial", "anywhere"):
            found.starts.contexts(kind)
    except SnapshotError as error:
        names = any(name in str(error) for name in ALL)
        return "refused" if names else f"no file is named: {error}"
    except BaseException:
        return traceback.format_exc()
    if _equal(found, expected):
        return "the original"
    return "another model" if signed else "loads, but is not the original"


def _equal(one: Snapshot, other: Snapshot) -> bool:
    mine, its = one.model.state_dict(), other.model.state_dict()
    return (
        (one.config, one.fidelity) == (other.config, other.fidelity)
        and mine.keys() == its.keys()
        and all(torch.equal(mine[name], its[name]) for name in mine)
        and all(torch.equal(tensor, other.starts.tensors[name]) for name, tensor in one.starts.tensors.items())
    )


def _memory(name: str) -> int:
    """Bytes of virtual memory: taken now (VmSize), or ever (VmPeak). Memory that is never touched counts as well."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] == ["signed"])))
