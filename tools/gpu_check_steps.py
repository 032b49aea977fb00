"""The steps of tools/gpu_check.py: every command, with the seconds predicted for an H100.

In commands MODELS/ is the folder of checkpoints, graphs and pairs, WORK/ that of what is made.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

PARTS = {
    "smoke": "TensorRT works here: tiny engines are built and run in every way",
    "ort": "ONNX Runtime's CUDA provider: parity and speed without TensorRT",
    "torch": "PyTorch on this GPU, which engines are compared with",
    "A": "the main engines: base and small at 720p, small at 448x256",
    "B": "1080p, base at 448x256, and the export of the published code beside ours",
    "C": "tests/test_gpu.py in three runs",
    "D": "what three rewrites of the graph gain",
}
IN_TORCH_PYTHON = ("models", "ort", "torch")
"""Parts; "models" makes what the others read. The rest runs in the Python with TensorRT."""

PROVES = {
    "arrays": "GPU arrays go to a real PyTorch and come from it without a copy",
    "build": "the engine passes its gate; how many convolutions are float16",
    "latency": "ms a pair, with and without a CUDA graph, one stream and two",
    "matrix": "only if smoke_tiny fails: which way of building works, TensorRT's first error",
    "ort": "ms a pair with I/O binding and without",
    "pair": "PSNR to float32 PyTorch on a real pair; equal frames in every mode; layers by type",
    "plain": "ms a pair of the published code's export in the same TensorRT",
    "rewrite": "ms a pair with and without the rewrite",
    "tests": "these tests pass",
    "torch": "ms a pair and PSNR of PyTorch; matmul peak",
}
"""By the first word of a step's name."""

_FRAMES = "--size 130x190 --precision"
GRAPHS = {
    "test_fp16": f"{_FRAMES} fp16",
    "test_fp32": f"{_FRAMES} fp32",
    "test_float": "--size 128x192 --precision fp16 --io float",
    "test_three": f"{_FRAMES} fp16 --timesteps 3",
    "test_batch": f"{_FRAMES} fp16 --batch 2",
    "test_free_pairs": f"{_FRAMES} fp16 --max-batch 4",
    "test_dynamic": f"{_FRAMES} fp16 --dynamic",
    "test_tiny": "--size 32x32 --precision fp16",
}
_WAYS = itertools.product(("frames", "float"), ("gridsample", "gather"), ("fp16", "fp32"))
MATRIX = {
    f"matrix_{io}_{warp}_{kind}": f"--size 32x32 --io {io} --warp {warp} --precision {kind}"
    for io, warp, kind in _WAYS
}
"""Both of small: what tests/test_gpu.py builds from, and the ways to build a tiny engine."""

_BUILDS = "builds or inspector or portable or timing_cache or nearest or another_machine"
TEST_RUNS = {"builds": _BUILDS, "frames": f"not ({_BUILDS}) and not leak", "leaks": "leak"}
"""-k of pytest. It writes its file at the end: a run that is ended loses its own results only."""

CONSTRAINTS = ("obey-all", "obey-islands", "prefer-islands", "none")
REWRITES = {
    "side": "side", "prelu_max": "prelu_max", "all": "side channels deconvolution grid prelu",
}  # fmt: skip
SHORT = "authors authors:autocast torch:fp16:channels_last"
EAGER = f"{SHORT} torch:fp16 authors:tf32 authors:half authors:half:channels_last"
COMPILED = "compile:fp16:channels_last authors:autocast:compile"
COMPILED_MAX = "compile-max:fp16:channels_last"
"""Of bench.latency --compare. max-autotune tries kernels for minutes."""


class Scale(NamedTuple):
    """Small, middle and large size of the frames, and how much is measured."""

    sizes: tuple[str, str, str] = ("256x448", "720x1280", "1080x1920")
    timed: str = "--samples 100 --seconds 3"
    openings: int = 100
    inferences: int = 1000


QUICK = Scale(
    ("64x96", "96x128", "128x160"), "--samples 2 --seconds 0 --stream-frames 3 --no-cold", 2, 30
)


@dataclass(frozen=True)
class Step:
    """One command: of which part, with predicted seconds, behind the name of the Python."""

    part: str
    seconds: float
    name: str
    command: str

    @property
    def makes(self) -> str:
        """The file that later steps read, or nothing."""
        return self._after("--output")

    @property
    def result(self) -> str:
        """The JSON or JUnit file for the record: measurements, or the manifest of an engine."""
        if self.makes.endswith(".engine"):
            return f"{self.makes}.json"
        return self._after("--json") or self._after("--junitxml")

    @property
    def needs(self) -> list[str]:
        """The files that it reads; the tests read their graphs."""
        written = ("--timing-cache", "--layers")
        made = (self.makes, self.result, *map(self._after, written))
        tests = [f"MODELS/{name}.onnx" for name in GRAPHS]
        words = tests if self.part == "C" else shlex.split(self.command)
        return [w for w in words if w.startswith(("MODELS/", "WORK/")) and w not in made]

    def _after(self, option: str) -> str:
        words = shlex.split(self.command)
        return words[words.index(option) + 1] if option in words else ""


def planned(scale: Scale) -> list[Step]:
    """All steps but those of "models", the most valuable of each part first."""
    small, middle, large = scale.sizes
    main = f"base_{middle}"
    found: list[Step] = []

    def build(part: str, seconds: float, name: str, graph: str, options: str = "") -> None:
        engine = f"WORK/{name.removeprefix('build_')}"
        command = f"-m export.build_engine --onnx MODELS/{graph}.onnx {options} --timing-cache "
        command += f"WORK/timing.cache --layers {engine}.layers.json --output {engine}.engine"
        found.append(Step(part, seconds, name, command))

    def latency(part: str, seconds: float, name: str, options: str) -> None:
        command = f"-m bench.latency {options} {scale.timed} --json WORK/{name}.json"
        found.append(Step(part, seconds, name, command))

    def pair(part: str, seconds: float, name: str, size: str, models: str) -> None:
        command = f"tools/gpu_check_tool.py pair {models} --pair MODELS/pair_{size}.npz"
        found.append(Step(part, seconds, name, f"{command} --json WORK/{name}.json"))

    build("smoke", 30, "build_smoke_tiny", "test_tiny")
    bounds = "--min 32x32 --opt 64x64 --max 130x190"
    build("smoke", 50, "build_smoke_dynamic", "test_dynamic", bounds)
    pair("smoke", 20, "pair_smoke_tiny", "32x32", "--model WORK/smoke_tiny.engine")
    pair("smoke", 20, "pair_smoke_dynamic", "32x32", "--model WORK/smoke_dynamic.engine")
    for graph in MATRIX:
        for rung in CONSTRAINTS if graph.endswith("fp16") else ():
            build("smoke", 10, f"{graph}_{rung}", graph, f"--precision-constraints {rung}")
        if graph.endswith("fp32"):
            build("smoke", 10, graph, graph)
    for size, variant in itertools.product((middle, small, large), ("base", "small")):
        name = f"{variant}_{size}"
        models = f"--model MODELS/{name}_fp16.onnx MODELS/{name}_fp32.onnx --device cuda"
        latency("ort", 50, f"ort_{name}", f"{models} --no-io-binding --no-cold --size {size}")
        pair("ort", 20, f"pair_ort_{name}", size, models)
    arrays = "tools/device_arrays_check.py --json WORK/arrays.json"
    found.append(Step("torch", 15, "arrays", arrays))
    for seconds, name, variant, runs, sizes in (
        (70, "eager", "base", EAGER, middle),
        (100, "compile", "base", COMPILED, middle),
        (45, "eager", "small", SHORT, " ".join(scale.sizes)),
        (35, "large", "base", SHORT, large),
        (285, "max", "base", f"{COMPILED_MAX} --compare-limit 500", middle),
    ):
        options = f"--device cuda --weights MODELS/{variant}.pth --compare {runs} --no-cold"
        latency("torch", seconds, f"torch_{name}_{variant}", f"{options} --size {sizes}")
    for part, seconds, variant, size, more in (
        ("A", 110, "base", middle, "--profile"),
        ("A", 50, "small", small, "--profile"),
        ("A", 80, "small", middle, "--no-cold"),
        ("B", 130, "base", large, "--no-cold"),
        ("B", 95, "small", large, "--no-cold"),
        ("B", 60, "base", small, "--no-cold"),
    ):
        name, model = f"{variant}_{size}", f"--model WORK/{variant}_{size}.engine"
        build(part, seconds, f"build_{name}", f"{name}_fp16")
        lanes = f"{model} --size {size} --streams 1 2 --no-cuda-graph {more}"
        latency(part, 55 if more == "--profile" else 30, f"latency_{name}", lanes)
        pair(part, 10, f"pair_{name}", size, model)
    plain = f"--model WORK/{main}.engine --plain MODELS/plain_{main}.onnx --size {middle}"
    latency("B", 110, f"plain_{main}", f"{plain} --no-cold")
    for (name, chosen), seconds in zip(TEST_RUNS.items(), (280, 190, 60), strict=True):
        command = (
            f"-m pytest tests/test_gpu.py -q -rA -o junit_family=xunit1 -k '{chosen}' --junitxml"
        )
        found.append(Step("C", seconds, f"tests_{name}", f"{command} WORK/tests_{name}.xml"))
    for change, names in REWRITES.items():
        build("D", 110, f"build_{main}_{change}", f"{main}_fp16", f"--rewrite {names}")
        both = f"--model WORK/{main}.engine WORK/{main}_{change}.engine --size {middle}"
        latency("D", 35, f"rewrite_{change}", f"{both} --no-cold")
    return found


def models_steps(scale: Scale) -> list[Step]:
    """The steps that make checkpoints, then graphs and pairs from them."""
    tool, export = "tools/gpu_check_tool.py", "-m export.to_onnx --time arbitrary --weights MODELS/"
    made = {f"{v}.pth": f"{tool} weights --variant {v}" for v in ("small", "base")}
    for variant, size, kind in itertools.product(("small", "base"), scale.sizes, ("fp16", "fp32")):
        options = f"--size {size} --precision {kind}"
        made[f"{variant}_{size}_{kind}.onnx"] = f"{export}{variant}.pth {options}"
    for name, options in (GRAPHS | MATRIX).items():
        made[f"{name}.onnx"] = f"{export}small.pth {options}"
    for size in ("32x32", *scale.sizes):
        both = "--weights MODELS/small.pth MODELS/base.pth"
        made[f"pair_{size}.npz"] = f"{tool} frames {both} --size {size}"
    plain = f"tools/export_plain.py --weights MODELS/base.pth --size {scale.sizes[1]}"
    made[f"plain_base_{scale.sizes[1]}.onnx"] = plain
    return [Step("models", 40, f"make_{name}", f"{command} --output MODELS/{name}")
            for name, command in made.items()]  # fmt: skip


def for_tensorrt(steps: Iterable[Step], version: str) -> list[Step]:
    """The steps that a TensorRT knows: precision constraints belong to 8.6 alone."""
    if version.startswith("8."):
        return list(steps)
    option = f" --precision-constraints {CONSTRAINTS[-1]}"
    return [replace(step, command=step.command.replace(option, "")) for step in steps
            if option in step.command or "--precision-constraints" not in step.command]  # fmt: skip


def with_models(steps: Iterable[Step], models: Iterable[Step]) -> list[Step]:
    """`steps` behind those of `models` that make what they need; for the matrix just before it."""
    steps, models = list(steps), list(models)
    wanted = {file for step in steps for file in step.needs}
    wanted |= {file for step in models if step.makes in wanted for file in step.needs}
    made = [step for step in models if step.makes in wanted]
    late = [step for step in made if "matrix" in step.name]
    place = next((k for k, step in enumerate(steps) if "matrix" in step.name), 0)
    return [*(step for step in made if step not in late), *steps[:place], *late, *steps[place:]]
