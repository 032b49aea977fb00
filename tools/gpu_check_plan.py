"""The steps of tools/gpu_check.py: every command of a whole check, the most valuable first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PARTS = ("export", "build", "latency", "torch", "tests", "rewrites")
VARIANTS = ("small", "base", "large")
SIZES = ("256x448", "720x1280", "1080x1920", "2160x3840")
HEADLINE = (("base", "720x1280"), ("small", "256x448"))
"""What the goals are about."""

SAMPLES = "200"
NO_COLD = "--no-cold"
"""Where engines are held against each other only: a fresh process for each run costs seconds."""

STEPS_OF_X8 = "7"
REWRITES = {
    "side": "fewer copies of channels for reading the input of a layer twice: faster where copies "
    "bind",
    "channels": "whole tiles of eight channels for 1.1 % more arithmetic: faster",
    "deconvolution": "3 to 18 % faster elsewhere, as published; 9/4 of the layer's arithmetic",
    "grid": "one addition less for each warp: slightly faster",
    "prelu": "slower, unless the builder fuses comparisons and not PReLU",
    "prelu_max": "as prelu, with two operators less",
}
"""What is expected of each rewrite of export.tuning_trt."""

ALL_REWRITES = tuple(name for name in REWRITES if name != "prelu_max")
"""Together; after `prelu` there is nothing left for `prelu_max`."""

TEST_GRAPHS = {
    "fp16": ("--size", "130x190", "--precision", "fp16"),
    "fp32": ("--size", "130x190", "--precision", "fp32"),
    "float": ("--size", "128x192", "--precision", "fp16", "--io", "float"),
    "three": ("--size", "130x190", "--precision", "fp16", "--timesteps", "3"),
    "batch": ("--size", "130x190", "--precision", "fp16", "--batch", "2"),
    "free_pairs": ("--size", "130x190", "--precision", "fp16", "--max-batch", "4"),
    "dynamic": ("--size", "130x190", "--precision", "fp16", "--dynamic"),
    "tiny": ("--size", "32x32", "--precision", "fp16"),
}
"""What tests/test_gpu.py builds from."""

TORCH_RUNS = {
    "base": (
        "authors_fp32",
        "authors_tf32",
        "authors_half",
        "authors_half_channels_last",
        "authors_autocast",
        "ours_fp16",
        "ours_fp16_channels_last",
        "ours_fp16_compiled",
        "authors_autocast_compiled",
    ),
    "small": ("authors_fp32", "authors_autocast", "ours_fp16_channels_last"),
}
"""Runs of tools/gpu_check_torch.py."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: Unique.
        part: Of PARTS.
        arguments: Behind the name of the Python.
        torch: Whether it runs in the Python that has PyTorch.
        needs: Files without which it cannot run.
        makes: A file that is kept where it is there already.
        result: A JSON or JUnit file that goes into the record.
        environment: Variables.
        timeout_s: When it is ended.
    """

    name: str
    part: str
    arguments: tuple[str, ...]
    torch: bool = False
    needs: tuple[Path, ...] = ()
    makes: Path | None = None
    result: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 600.0

    @property
    def is_build(self) -> bool:
        """Whether it makes an engine, whose manifest is the result."""
        return "export.build_engine" in self.arguments

    @property
    def product(self) -> Path | None:
        """What later steps may need of it."""
        return self.result if self.is_build else self.makes


class Plan:
    """The steps of a whole check, the most valuable first."""

    def __init__(self, work: Path, *, variants: Sequence[str], sizes: Sequence[str]) -> None:
        self.work = work
        self.models, self.engines, self.found = (work / n for n in ("models", "engines", "found"))
        self.variants, self.sizes = variants, sizes

    def steps(self) -> Iterator[Step]:
        """Every step; an export comes before what is built from it."""
        headline = [(v, s) for v, s in HEADLINE if v in self.variants and s in self.sizes]
        for variant in self.variants:
            if variant != "small":
                yield self._weights(variant)
        for variant, size in headline:
            yield from self._graph_and_engine(variant, size, "fp16")
            yield self._latency(variant, size, "fp16", "--profile")
        if headline and headline[0] == HEADLINE[0]:
            yield from self._plain(*headline[0])
        if headline:
            yield self._torch_time("matmul_peak", [])
        for variant, size in headline:
            for run in TORCH_RUNS[variant]:
                pair = ["--weights", self._checkpoint(variant), "--size", size]
                yield self._torch_time(run, pair, f"_{variant}_{size}", variant)
        yield from self._tests()
        if headline and headline[0] == HEADLINE[0]:
            yield from self._rewrites(*headline[0])
        yield from self._x8()
        others = [
            (variant, size, precision)
            for precision in ("fp16", "fp32")
            for size in self.sizes
            for variant in self.variants
            if precision == "fp32" or (variant, size) not in headline
        ]
        for variant, size, precision in others:
            yield from self._graph_and_engine(variant, size, precision)
            if precision == "fp16":
                yield self._latency(variant, size, precision)

    def _checkpoint(self, variant: str) -> str:
        """The shipped weights of small; of the others random ones, by which time is the same."""
        return "demo" if variant == "small" else str(self.models / f"{variant}.pth")

    def _needs_checkpoint(self, variant: str) -> tuple[Path, ...]:
        return () if variant == "small" else (Path(self._checkpoint(variant)),)

    def _weights(self, variant: str) -> Step:
        path = Path(self._checkpoint(variant))
        arguments = ("tools/gpu_check_torch.py", "weights", "--variant", variant, "--output")
        return Step(f"weights_{variant}", "export", (*arguments, str(path)), torch=True, makes=path)

    def _export(self, name: str, variant: str, *options: str) -> Step:
        path = self.models / f"{name}.onnx"
        return Step(
            f"export_{name}",
            "export",
            (
                "-m", "export.to_onnx", "--weights", self._checkpoint(variant), *options,
                "--output", str(path),
            ),
            torch=True,
            needs=self._needs_checkpoint(variant),
            makes=path,
        )  # fmt: skip

    def _build(self, name: str, *options: str, source: str | None = None, part: str) -> Step:
        onnx, engine = self.models / f"{source or name}.onnx", self.engines / f"{name}.engine"
        return Step(
            f"build_{name}",
            part,
            (
                "-m", "export.build_engine", "--onnx", str(onnx), *options,
                "--timing-cache", str(self.work / "timing.cache"), "--output", str(engine),
            ),
            needs=(onnx,),
            result=engine.with_name(f"{engine.name}.json"),
            timeout_s=900.0,
        )  # fmt: skip

    def _graph_and_engine(self, variant: str, size: str, precision: str) -> Iterator[Step]:
        name = f"{variant}_{size}_{precision}"
        yield self._export(name, variant, "--size", size, "--precision", precision)
        yield self._build(name, part="build")

    def _bench(
        self, name: str, engines: Sequence[str], size: str, *options: str, part: str = "latency"
    ) -> Step:
        paths = [self.engines / f"{engine}.engine" for engine in engines]
        result = self.found / f"{name}.json"
        return Step(
            name,
            part,
            (
                "-m", "bench.latency", "--model", *map(str, paths), "--size", size, *options,
                "--samples", SAMPLES, "--json", str(result),
            ),
            needs=tuple(paths),
            result=result,
        )  # fmt: skip

    def _latency(self, variant: str, size: str, precision: str, *options: str) -> Step:
        name = f"{variant}_{size}_{precision}"
        streams = ("--streams", "1", "2", "--no-cuda-graph")
        return self._bench(f"latency_{name}", [name], size, *streams, *options)

    def _plain(self, variant: str, size: str) -> Iterator[Step]:
        path = self.models / f"plain_{variant}_{size}.onnx"
        tool = "tools/gpu_check_torch.py"
        yield Step(
            f"export_plain_{variant}_{size}",
            "export",
            (
                tool, "export", "--weights", self._checkpoint(variant), "--size", size,
                "--output", str(path),
            ),
            torch=True,
            needs=self._needs_checkpoint(variant),
            makes=path,
        )  # fmt: skip
        engine = self.engines / f"{variant}_{size}_fp16.engine"
        result = self.found / f"plain_{variant}_{size}.json"
        yield Step(
            f"plain_{variant}_{size}",
            "latency",
            (
                "tools/gpu_check_plain.py", "--onnx", str(path), "--engine", str(engine),
                "--samples", SAMPLES, "--json", str(result),
            ),
            needs=(path, engine),
            result=result,
        )  # fmt: skip

    def _torch_time(
        self, run: str, options: Sequence[str], suffix: str = "", variant: str = "small"
    ) -> Step:
        result = self.found / f"torch_{run}{suffix}.json"
        return Step(
            f"torch_{run}{suffix}",
            "torch",
            (
                "tools/gpu_check_torch.py", "time", "--run", run, *options, "--json", str(result),
            ),
            torch=True,
            needs=self._needs_checkpoint(variant),
            result=result,
            timeout_s=240.0,
        )  # fmt: skip

    def _tests(self) -> Iterator[Step]:
        exports = [
            self._export(f"test_{name}", "small", *options) for name, options in TEST_GRAPHS.items()
        ]
        yield from exports
        junit = self.found / "tests.xml"
        yield Step(
            "tests",
            "tests",
            ("-m", "pytest", "tests/test_gpu.py", "-q", "-rA", "--junitxml", str(junit)),
            needs=tuple(step.makes for step in exports if step.makes is not None),
            result=junit,
            timeout_s=1200.0,
            environment={"FAIL_WITHOUT_GPU": "1", "IFRNET_GPU_MODELS": str(self.models)},
        )

    def _rewrites(self, variant: str, size: str) -> Iterator[Step]:
        plain = f"{variant}_{size}_fp16"
        changes = {**{name: (name,) for name in REWRITES}, "all": ALL_REWRITES}
        for change, names in changes.items():
            yield self._build(
                f"{plain}_{change}", "--rewrite", *names, source=plain, part="rewrites"
            )
        # Each against the plain one in turns, so that one that failed to build costs only itself.
        for change in changes:
            both = [plain, f"{plain}_{change}"]
            yield self._bench(f"rewrite_{change}", both, size, NO_COLD, part="rewrites")

    def _x8(self) -> Iterator[Step]:
        """Seven frames between two: one call that encodes once against seven calls."""
        if "small" not in self.variants or "720x1280" not in self.sizes:
            return
        one, seven = "small_720x1280_fp16", "small_720x1280_fp16_x8"
        yield from self._graph_and_engine("small", "720x1280", "fp16")
        size = ("--size", "720x1280", "--precision", "fp16")
        yield self._export(seven, "small", *size, "--timesteps", STEPS_OF_X8)
        yield self._build(seven, part="latency")
        yield self._bench("x8", [one, seven], "720x1280", "--factor", "8", NO_COLD)


def planned(plan: Plan, parts: Sequence[str]) -> list[Step]:
    """The steps of these parts, each once."""
    steps: dict[str, Step] = {}
    for step in plan.steps():
        if step.part in parts:
            steps.setdefault(step.name, step)
    return list(steps.values())
