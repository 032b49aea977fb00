"""The steps of tools/gpu_check.py: their commands and predicted times.

The times are those of an H200 with TensorRT 8.6, where a build without a timing cache took 159 to
181 s for frames of any size. In commands, MODELS/ is the folder of checkpoints, graphs and pairs,
and WORK/ that of engines and results.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

PARTS = {
    "smoke": "TensorRT works here: tiny engines are built and run with all options",
    "ort": "ONNX Runtime's CUDA provider: parity and speed without TensorRT",
    "torch": "the speed of PyTorch on this GPU, for comparison with the engines",
    "A": "the main engines: base at 720p, small at 448x256",
    "B": "1080p, the other engines, and a plain export of the published code for comparison",
    "C": "tests/test_gpu.py, and the engines that it needs",
    "D": "the gain of three rewrites of the graph",
}
IN_TORCH_PYTHON = ("models", "ort", "torch")
"""Parts that run in the Python with PyTorch; the others run in the Python with TensorRT. "models"
makes the files that the others read."""

PROVES = {
    "arrays": "GPU arrays are exchanged with a real PyTorch without a copy",
    "build": "the engine passes the gate; number of convolutions in float16",
    "latency": "ms per pair, with and without a CUDA graph, with one stream and two",
    "matrix": "only if smoke_tiny fails: which build options work, and TensorRT's first error",
    "ort": "ms per pair with I/O binding and without",
    "pair": "PSNR to float32 PyTorch on a real pair; equal frames in all modes; layers by type",
    "plain": "ms per pair of the plain export in the same TensorRT",
    "rewrite": "ms per pair with and without the rewrite",
    "tests": "these tests pass",
    "torch": "ms per pair and PSNR of PyTorch; matmul peak of the GPU",
}
"""First word of a step's name -> what the step proves."""

_FRAMES = "--size 130x190 --precision"
GRAPHS = {
    "test_fp16": f"{_FRAMES} fp16",
    "test_fp32": f"{_FRAMES} fp32",
    "test_float": "--size 128x192 --precision fp16 --io float",
    "test_three": f"{_FRAMES} fp16 --steps-per-call 3",
    "test_batch": f"{_FRAMES} fp16 --batch 2",
    "test_free_pairs": f"{_FRAMES} fp16 --max-batch 4",
    "test_dynamic": f"{_FRAMES} fp16 --dynamic",
    "test_tiny": "--size 32x32 --precision fp16",
}
"""Name -> export options of the graphs of small from which tests/test_gpu.py builds engines."""

MATRIX = {
    f"matrix_{io}_{warp}_{kind}": f"--size 32x32 --io {io} --warp {warp} --precision {kind}"
    for io, warp, kind in itertools.product(
        ("frames", "float"), ("gridsample", "gather"), ("fp16", "fp32")
    )
}
"""Name -> export options of graphs of small, for all ways to build a tiny engine."""

TEST_ENGINES = {
    **{name.removeprefix("test_"): (name, "") for name in GRAPHS},
    "dynamic": ("test_dynamic", "--min 64x64 --opt 130x190 --max 256x448"),
    "fp16_portable": ("test_fp16", "--portable"),
}
"""Name of an engine in tests/test_gpu.py -> its graph, and options of export.build_engine. Each is
built in its own step, because the tests would take too long if they built all; they find the
engines up to date."""

_BUILDS = "builds or inspector or portable or another_machine"
_OTHERS = "timing_cache or nearest or leak"
TEST_RUNS = {
    "builds": (20, _BUILDS), "frames": (60, f"not ({_BUILDS} or {_OTHERS})"),
    "leaks": (60, "leak"), "cache": (400, "timing_cache"), "nearest": (180, "nearest"),
}  # fmt: skip
"""Name of a run -> predicted seconds, and option -k of pytest. As pytest writes results at its end,
an interrupted run loses only its own."""

CONSTRAINTS = ("obey-all", "obey-islands", "prefer-islands", "none")
REWRITES = {
    "side": "side", "prelu_max": "prelu_max", "all": "side channels deconvolution grid prelu",
}  # fmt: skip
SHORT = "authors authors:autocast torch:fp16:channels_last"
EAGER = f"{SHORT} torch:fp16 authors:tf32 authors:half authors:half:channels_last"
COMPILED = "compile:fp16:channels_last authors:autocast:compile"
COMPILED_MAX = "compile-max:fp16:channels_last"
"""SHORT to COMPILED_MAX are values of --compare of bench.latency. max-autotune takes minutes."""


BUILD_SECONDS = 170.0
"""Predicted time of a build."""


class Scale(NamedTuple):
    """How much is measured.

    Attributes:
        sizes: Small, middle and large size of the frames, HEIGHTxWIDTH.
        timed: Options of bench.latency.
        openings: Number of times that the tests for leaks open a model.
        inferences: Number of inferences in the tests for leaks.
    """

    sizes: tuple[str, str, str] = ("256x448", "720x1280", "1080x1920")
    timed: str = "--samples 100 --seconds 3"
    openings: int = 100
    inferences: int = 1000


QUICK = Scale(
    ("64x96", "96x128", "128x160"),
    "--samples 2 --seconds 0 --stream-frames 3 --no-cold-start",
    2,
    30,
)


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        part: The part that it belongs to.
        seconds: Its predicted time.
        name: Its name, unique among all steps.
        command: The arguments of the Python that runs it.
    """

    part: str
    seconds: float
    name: str
    command: str

    @property
    def makes(self) -> str:
        """The file for later steps; "" if there is none."""
        return self._value_of("--output")

    @property
    def result(self) -> str:
        """The JSON or JUnit file for the record, which is the manifest for an engine; or ""."""
        if self.makes.endswith(".engine"):
            return f"{self.makes}.json"
        return self._value_of("--json") or self._value_of("--junitxml")

    @property
    def needs(self) -> list[str]:
        """The files that it reads; for tests their graphs."""
        outputs = (self.makes, self.result, *map(self._value_of, ("--timing-cache", "--layers")))
        graphs = [f"MODELS/{name}.onnx" for name in GRAPHS]
        words = graphs if self.part == "C" else shlex.split(self.command)
        return [w for w in words if w.startswith(("MODELS/", "WORK/")) and w not in outputs]

    def _value_of(self, option: str) -> str:
        """The value of an option in the command; "" without the option."""
        words = shlex.split(self.command)
        return words[words.index(option) + 1] if option in words else ""


def planned(scale: Scale) -> list[Step]:
    """All steps except those of "models"; in each part the most important first."""
    small, middle, large = scale.sizes
    main = f"base_{middle}"
    steps: list[Step] = []

    def build(
        part: str, name: str, graph: str, options: str = "", *, engine: str = "",
        seconds: float = BUILD_SECONDS,
    ) -> None:  # fmt: skip
        engine = f"WORK/{engine or name.removeprefix('build_')}"
        command = f"-m export.build_engine --onnx MODELS/{graph}.onnx {options} --timing-cache "
        command += f"WORK/timing.cache --layers {engine}.layers.json --output {engine}.engine"
        steps.append(Step(part, seconds, name, command))

    def latency(part: str, seconds: float, name: str, options: str) -> None:
        command = f"-m bench.latency {options} {scale.timed} --json WORK/{name}.json"
        steps.append(Step(part, seconds, name, command))

    def pair(part: str, seconds: float, name: str, size: str, models: str) -> None:
        command = f"tools/gpu_check_tool.py pair {models} --pair MODELS/pair_{size}.npz"
        steps.append(Step(part, seconds, name, f"{command} --json WORK/{name}.json"))

    build("smoke", "build_smoke_tiny", "test_tiny")
    bounds = "--min 32x32 --opt 64x64 --max 130x190"
    build("smoke", "build_smoke_dynamic", "test_dynamic", bounds)
    pair("smoke", 20, "pair_smoke_tiny", "32x32", "--model WORK/smoke_tiny.engine")
    pair("smoke", 20, "pair_smoke_dynamic", "32x32", "--model WORK/smoke_dynamic.engine")
    for graph in MATRIX:
        for level in CONSTRAINTS if graph.endswith("fp16") else ():
            build("smoke", f"{graph}_{level}", graph, f"--precision-constraints {level}")
        if graph.endswith("fp32"):
            build("smoke", graph, graph)
    for size, variant in itertools.product((middle, small, large), ("base", "small")):
        name = f"{variant}_{size}"
        models = f"--model MODELS/{name}_fp16.onnx MODELS/{name}_fp32.onnx --device cuda"
        options = f"{models} --no-io-binding --no-cold-start --size {size}"
        latency("ort", 50, f"ort_{name}", options)
        pair("ort", 20, f"pair_ort_{name}", size, models)
    arrays = "tools/device_arrays_check.py --json WORK/arrays.json"
    steps.append(Step("torch", 15, "arrays", arrays))
    for seconds, name, variant, runs, sizes in (
        (70, "eager", "base", EAGER, middle),
        (100, "compile", "base", COMPILED, middle),
        (45, "eager", "small", SHORT, " ".join(scale.sizes)),
        (35, "large", "base", SHORT, large),
        (285, "max", "base", f"{COMPILED_MAX} --compare-limit 500", middle),
    ):
        options = f"--device cuda --weights MODELS/{variant}.pth --compare {runs}"
        options += f" --no-cold-start --size {sizes}"
        latency("torch", seconds, f"torch_{name}_{variant}", options)
    for part, variant, size, more in (
        ("A", "base", middle, "--profile"),
        ("A", "small", small, "--profile"),
        ("B", "base", large, "--no-cold-start"),
        ("B", "small", middle, "--no-cold-start"),
        ("B", "small", large, "--no-cold-start"),
        ("B", "base", small, "--no-cold-start"),
    ):
        name, model = f"{variant}_{size}", f"--model WORK/{variant}_{size}.engine"
        build(part, f"build_{name}", f"{name}_fp16")
        options = f"{model} --size {size} --streams 1 2 --no-cuda-graph {more}"
        latency(part, 35 if more == "--profile" else 30, f"latency_{name}", options)
        pair(part, 5, f"pair_{name}", size, model)
    plain = f"--model WORK/{main}.engine --plain MODELS/plain_{main}.onnx --size {middle}"
    latency("B", BUILD_SECONDS + 30, f"plain_{main}", f"{plain} --no-cold-start")
    for name, (graph, options) in TEST_ENGINES.items():
        engine, builds = f"test_engines/{name}", 2 if "portable" in name else 1
        build("C", f"build_test_{name}", graph, options, engine=engine,
              seconds=builds * BUILD_SECONDS)  # fmt: skip
    for name, (seconds, selection) in TEST_RUNS.items():
        command = "-m pytest tests/test_gpu.py -q -rA -o junit_family=xunit1"
        command += f" -k '{selection}' --junitxml WORK/tests_{name}.xml"
        steps.append(Step("C", seconds, f"tests_{name}", command))
    for change, names in REWRITES.items():
        build("D", f"build_{main}_{change}", f"{main}_fp16", f"--rewrite {names}")
        both = f"--model WORK/{main}.engine WORK/{main}_{change}.engine --size {middle}"
        latency("D", 35, f"rewrite_{change}", f"{both} --no-cold-start")
    return steps


def models_steps(scale: Scale) -> list[Step]:
    """The steps that make the checkpoints, then the graphs and pairs from them."""
    tool, export = "tools/gpu_check_tool.py", "-m export.to_onnx --time arbitrary --weights MODELS/"
    commands = {f"{v}.pth": f"{tool} weights --variant {v}" for v in ("small", "base")}
    for variant, size, kind in itertools.product(("small", "base"), scale.sizes, ("fp16", "fp32")):
        options = f"--size {size} --precision {kind}"
        commands[f"{variant}_{size}_{kind}.onnx"] = f"{export}{variant}.pth {options}"
    for name, options in (GRAPHS | MATRIX).items():
        commands[f"{name}.onnx"] = f"{export}small.pth {options}"
    for size in ("32x32", *scale.sizes):
        both = "--weights MODELS/small.pth MODELS/base.pth"
        commands[f"pair_{size}.npz"] = f"{tool} frames {both} --size {size}"
    plain = f"tools/export_plain.py --weights MODELS/base.pth --size {scale.sizes[1]}"
    commands[f"plain_base_{scale.sizes[1]}.onnx"] = plain
    return [Step("models", 40, f"make_{name}", f"{command} --output MODELS/{name}")
            for name, command in commands.items()]  # fmt: skip


def for_tensorrt(steps: Iterable[Step], version: str) -> list[Step]:
    """The steps for a version of TensorRT: only 8.6 has precision constraints."""
    if version.startswith("8."):
        return list(steps)
    option = f" --precision-constraints {CONSTRAINTS[-1]}"
    return [replace(step, command=step.command.replace(option, "")) for step in steps
            if option in step.command or "--precision-constraints" not in step.command]  # fmt: skip


def with_models(steps: Iterable[Step], models: Iterable[Step]) -> list[Step]:
    """`steps` after those of `models` that make their files.

    The files of the matrix are made just before the matrix, which is rarely run.
    """
    steps, models = list(steps), list(models)
    needed = {file for step in steps for file in step.needs}
    needed |= {file for step in models if step.makes in needed for file in step.needs}
    makers = [step for step in models if step.makes in needed]
    late = [step for step in makers if "matrix" in step.name]
    early = [step for step in makers if "matrix" not in step.name]
    position = next((k for k, step in enumerate(steps) if "matrix" in step.name), 0)
    return [*early, *steps[:position], *late, *steps[position:]]
