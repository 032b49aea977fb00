"""How long an archive takes on 1, 8, 64, 512 workers, from what `bench.cluster` measured.

    python -m bench.cluster_forecast bench/results/cluster.json --hours 1000 --pixels 1080x1920

A calculation, not a measurement: the steps of every video (scan, look, render, join) are given to
the workers in the order in which `runtime.cluster` gives them, each with its measured time per
frame. Looking, rendering and joining are scaled with the pixels. What it leaves out is said in
docs/scale.md.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from bench.environment import MeasurementError
from runtime.cli import command_parser, parse_size, run_command


@dataclass(frozen=True)
class Costs:
    """Seconds of one worker.

    Attributes:
        scan: For each frame of a video, to read its packets.
        look: For each frame, to decode it and look for cuts.
        render: For each frame, to decode, interpolate and encode.
        join: For each frame, to copy its packets.
    """

    scan: float
    look: float
    render: float
    join: float

    @classmethod
    def measured(cls, record: dict[str, Any], *, pixels: float = 1.0) -> Costs:
        """From the evidence of `bench.cluster`.

        Args:
            record: That.
            pixels: Of the archive's frames, over those of the clip that was measured.

        Raises:
            MeasurementError: If it is something else.
        """
        try:
            steps, frames = record["steps"], record["frames_in"]
            per_frame = {name: steps[name] / frames for name in ("scan", "look", "render", "join")}
        except (KeyError, TypeError, ZeroDivisionError) as error:
            raise MeasurementError(
                f"the file is no evidence of bench.cluster ({error}): measure with --json first"
            ) from error
        scaled = {name: seconds * pixels for name, seconds in per_frame.items() if name != "scan"}
        return cls(scan=per_frame["scan"], **scaled)


class Archive(NamedTuple):
    """Videos that are alike.

    Attributes:
        videos: How many.
        frames: Of each.
        segment_frames: Frames of a segment.
    """

    videos: int
    frames: int
    segment_frames: int

    @property
    def segments(self) -> int:
        """Of one video."""
        return math.ceil(self.frames / self.segment_frames)


class Forecast(NamedTuple):
    """What is to be expected.

    Attributes:
        workers: How many.
        seconds: From the beginning to the last join.
        efficiency: Share of the workers' time in which they work.
        lost_seconds: That a worker's death costs on average: half a segment of one worker.
    """

    workers: int
    seconds: float
    efficiency: float
    lost_seconds: float


def forecast(costs: Costs, archive: Archive, workers: int) -> Forecast:
    """Gives every step to the next free worker, as `runtime.cluster` does.

    A video that is begun goes before another: its steps stand first in the queue. A step is queued
    when the last of those that it needs has ended.
    """
    segments, at_most = archive.segments, archive.segment_frames
    part = archive.frames / segments
    step_seconds = {
        "scan": costs.scan * archive.frames,
        "look": costs.look * part,
        "render": costs.render * part,
        "join": costs.join * archive.frames,
    }
    count = {"scan": 1, "look": segments, "render": segments, "join": 1}
    following = {"scan": "look", "look": "render", "render": "join"}
    queue: deque[tuple[int, str]] = deque((video, "scan") for video in range(archive.videos))
    left = {video: {step: count[step] for step in count} for video in range(archive.videos)}
    running: list[tuple[float, int, str]] = []
    free, now = workers, 0.0
    while queue or running:
        while queue and free:
            video, step = queue.popleft()
            heapq.heappush(running, (now + step_seconds[step], video, step))
            free -= 1
        now, video, step = heapq.heappop(running)
        free += 1
        left[video][step] -= 1
        if left[video][step] == 0 and step in following:
            queue.extendleft((video, following[step]) for _ in range(count[following[step]]))
    work = archive.videos * sum(step_seconds[step] * count[step] for step in count)
    return Forecast(workers, now, work / (now * workers), costs.render * at_most / 2)


def _forecast(args: argparse.Namespace) -> None:
    record = json.loads(args.evidence.read_text())
    height, width = args.pixels or record["size"]
    measured_height, measured_width = record["size"]
    costs = Costs.measured(record, pixels=height * width / (measured_height * measured_width))
    if args.speed_up != 1.0:
        costs = Costs(costs.scan, costs.look, costs.render / args.speed_up, costs.join)
    frames = round(args.video_hours * 3600 * args.rate)
    archive = Archive(
        max(1, round(args.hours / args.video_hours)),
        frames,
        max(1, round(args.segment_seconds * args.rate)),
    )
    print(
        f"{archive.videos} videos of {args.video_hours:g} h at {args.rate:g} frames/s, "
        f"{height}x{width}, {archive.segments} segments each\n\n"
        "| workers | hours | video hours an hour | efficiency | a lost worker costs, s |\n"
        "| ---: | ---: | ---: | ---: | ---: |"
    )
    for workers in args.workers:
        found = forecast(costs, archive, workers)
        hours = found.seconds / 3600
        print(
            f"| {workers} | {hours:,.1f} | {args.hours / hours:,.3g} | {found.efficiency:.1%} | "
            f"{found.lost_seconds:.0f} |"
        )


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = command_parser(
        "python -m bench.cluster_forecast",
        "Calculates how long an archive takes on a cluster, from the evidence of bench.cluster.",
        "python -m bench.cluster_forecast bench/results/cluster.json --hours 1000 "
        "--pixels 1080x1920 --workers 1 8 64 512",
    )
    parser.add_argument("evidence", type=Path, metavar="CLUSTER.json")
    parser.add_argument("--hours", type=float, default=1000.0, help="of video (default 1000)")
    parser.add_argument("--video-hours", type=float, default=1.0, help="of each (default 1)")
    parser.add_argument("--rate", type=float, default=24.0, help="frames a second (default 24)")
    parser.add_argument(
        "--pixels", type=parse_size, metavar="HxW", help="of its frames (default: as measured)"
    )
    parser.add_argument(
        "--segment-seconds", type=float, default=10.0, metavar="S", help="default 10"
    )
    parser.add_argument(
        "--speed-up",
        type=float,
        default=1.0,
        metavar="X",
        help="of rendering, for workers that are so much faster than the one that was measured",
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64, 512], metavar="N")
    run_command(parser, _forecast, extra="bench", argv=argv)


if __name__ == "__main__":
    main()
