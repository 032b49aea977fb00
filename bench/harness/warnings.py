"""Warnings about the runs of a case, computed from their evidence."""

from __future__ import annotations

from collections.abc import Iterator

from bench.data.protocols import LATENCY_SETS, PROTOCOLS
from bench.harness.interleave import WarmUp, sample_warnings
from bench.records.latency import CaseRecord, RunRecord


def run_warnings(case: CaseRecord, run: RunRecord) -> list[str]:
    """Warnings about one run of a case, one sentence each.

    `bench.latency` records them as "warnings" of the run. Reports compute them again, so that
    evidence of earlier versions has the same wording.

    Args:
        case: The evidence of the case; its other runs decide whether a run is comparable.
        run: The evidence of the run. Its "warnings" are not read.
    """
    warm_up = WarmUp(run["warm_up"]["runs"], run["warm_up"]["steady"])
    return [
        *sample_warnings(run["seconds"], warm_up),
        *_flow_scale_warnings(case, run),
        *_device_warnings(case, run),
        *_cuda_graph_warnings(run),
    ]


def _flow_scale_warnings(case: CaseRecord, run: RunRecord) -> Iterator[str]:
    protocol = PROTOCOLS.get(LATENCY_SETS.get(case["dataset"] or "", ""))
    scale = _flow_scale(run)
    if protocol is not None and scale is not None and scale != protocol.flow_scale:
        yield (
            f"its flow scale is {scale:g}, that of the protocol of {case['dataset']} is "
            f"{protocol.flow_scale:g}: measure an artefact exported with "
            f"--flow-scale {protocol.flow_scale:g}"
        )


def _flow_scale(run: RunRecord) -> float | None:
    """The flow scale of a run; None for baselines in evidence of earlier versions."""
    of_run = run["artefact"] or run.get("pytorch") or {}
    scale: float | None = of_run.get("flow_scale")
    return scale


def _device_warnings(case: CaseRecord, run: RunRecord) -> Iterator[str]:
    if not _on_gpu(run) and any(map(_on_gpu, case["runs"].values())):
        yield "it ran on the CPU, other runs on a GPU: give --device cuda to run it on the GPU"


def _on_gpu(run: RunRecord) -> bool:
    """Whether a run used a GPU, where only engines have CUDA graphs and only CUDA I/O binding."""
    artefact = run["artefact"]
    if artefact is None:
        return "gpu" in (run.get("pytorch") or {})
    return run["kind"] == "plain" or "cuda_graph" in artefact or "io_binding" in artefact


def _cuda_graph_warnings(run: RunRecord) -> Iterator[str]:
    if run["artefact"] is not None and (problem := run["artefact"].get("cuda_graph_problem")):
        yield (f"its CUDA graph could not be captured ({problem}): it was measured without one")
