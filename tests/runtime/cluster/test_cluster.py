"""runtime.cluster on a real Ray cluster of two nodes: results, failures, resuming, errors."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

from commands import run_module, signalled
from openvino_types import claim_types
from runtime import FrameError, Interpolator, VideoError, files, interpolate_video
from runtime.cluster.__main__ import sources_in
from runtime.cluster.pool import TRIES, ClusterError, Pool, Share, connected
from runtime.cluster.videos import interpolate_many
from runtime.cluster.worker import ModelChoice, _built_here, open_on_worker
from runtime.errors import BackendError, ModelError
from runtime.files import lock_file
from runtime.manifest import file_sha256
from runtime.video.options import VideoOptions
from runtime.video.segments.jobs import Job
from video_clips import write
from video_parts import KEYS, times_and_hashes

ray = pytest.importorskip("ray")

ONE = Share(cpus=1)
WHOLE = VideoOptions(codec="ffv1", cuts=None)
SECONDS = Fraction("0.4")


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of two nodes with one worker each."""
    from ray.cluster_utils import Cluster

    # Ray's processes import the same packages as this one.
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    # The second node is added later: older versions of Ray connect to any existing node, and
    # the node that this process is connected to cannot be removed.
    with connected(made.address):
        made.second = made.add_node(num_cpus=1)
        yield made
    made.shutdown()


@pytest.fixture(scope="module")
def model(models):
    path = models / "frames.onnx"
    return ModelChoice(path, file_sha256(path), backend="onnxruntime", threads=1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write(
        tmp_path_factory.mktemp("clip") / "in.mkv", 55, size=(50, 70), options=KEYS, audio="aac"
    )


@pytest.fixture(scope="module")
def one_run(clip, model, tmp_path_factory):
    """The video that one machine writes from the clip."""
    made = tmp_path_factory.mktemp("one") / "out.mkv"
    with Interpolator.open(model.path, backend="onnxruntime", threads=1) as vfi:
        interpolate_video(clip, made, model=vfi, options=WHOLE)
    return times_and_hashes(made)


def many(sources, model, options=WHOLE, **how):
    return interpolate_many(
        sources, model, options=options, share=ONE, segment_seconds=SECONDS, **how
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_the_result_equals_that_of_one_machine(cluster, model, clip, one_run, tmp_path, workers):
    out = tmp_path / "out.mkv"
    seen = []
    report = many([(clip, out)], model, workers=workers, progress=lambda *at: seen.append(at))
    assert times_and_hashes(out) == one_run
    assert [p.name for p in tmp_path.iterdir()] == ["out.mkv"]
    (video,) = report.videos
    assert video.error is None
    assert (video.frames_in, video.frames_out, video.frames_new) == (55, 110, 54)
    assert video.segments == 6
    assert seen[-1] == (110, 110)
    assert len({worker["node"] for worker in report.workers}) == workers
    assert report.retries == 0


def pids():
    """Process ids of the workers of this cluster; other tests may run a cluster as well."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            worker = (folder / "cmdline").read_bytes().startswith(b"ray::_Host")
            if worker and os.getpid() in ancestors(int(folder.name)):
                found.append(int(folder.name))
    return found


def ancestors(pid):
    """The parent of a process, its parent, and so on."""
    while pid > 1:
        # The name, in brackets, may contain spaces; state and parent follow it.
        _, _, after = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")
        pid = int(after.split()[1])
        yield pid


def test_after_a_worker_is_killed_no_frame_is_missing(cluster, model, clip, one_run, tmp_path):
    killed = []

    def kill(done, known):
        if done and not killed:
            killed.append(pids()[0])
            os.kill(killed[0], signal.SIGKILL)

    out = tmp_path / "out.mkv"
    report = many([(clip, out)], model, progress=kill)
    assert killed
    assert times_and_hashes(out) == one_run
    assert report.failures == []


def test_a_job_that_kills_every_worker_is_given_up_and_named(cluster):
    # The workers cannot import this file.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with Pool(Deadly, (), share=ONE) as pool:
        pool.add(Job("work", {"deadly": True}, "bad"))
        pool.add(Job("work", {"deadly": False}, "good"))
        done = {one.job.about: one for one in pool.results()}
    assert done["good"].result == "worked"
    assert isinstance(done["bad"].error, ClusterError)
    assert f"{TRIES} workers died during the same step" in str(done["bad"].error)
    assert pool.retries == TRIES - 1


class Deadly:
    """A worker that ends its process if the job says so."""

    def ready(self):
        return {}

    def work(self, deadly):
        if deadly:
            os._exit(1)
        return "worked"


def test_bad_files_are_named_and_good_ones_are_rendered(cluster, model, clip, one_run, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    wrong = write(tmp_path / "wrong.mkv", 20, size=(64, 80), options=KEYS)
    tiny = write(tmp_path / "tiny.mkv", 20, size=(8, 8), codec="ffv1")
    good = [tmp_path / f"good{k}.mkv" for k in range(2)]
    for path in good:
        shutil.copy(clip, path)
    out = tmp_path / "out"
    out.mkdir()
    sources = [
        (p, out / p.with_suffix(".mkv").name) for p in [good[0], broken, wrong, good[1], tiny]
    ]
    report = many(sources, model)
    assert [video.error is None for video in report.videos] == [True, False, False, True, False]
    assert "broken.mp4 cannot be read as a video" in report.videos[1].error
    assert (
        "frames are 64x80 (height x width), this model takes 50x70 only" in report.videos[2].error
    )
    assert "tiny.mkv is 8x8: frames are at least 16x16" in report.videos[4].error
    assert all(times_and_hashes(out / path.name) == one_run for path in good)
    # No files of the bad one are left.
    assert sorted(p.name for p in out.iterdir()) == ["good0.mkv", "good1.mkv"]


def test_resume_reuses_complete_segments(cluster, model, clip, one_run, tmp_path):
    out = tmp_path / "out.mkv"
    folder = tmp_path / "out.mkv.segments"

    def stop(done, known):
        if done >= 3 * 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        many([(clip, out)], model, progress=stop)
    whole = sorted(folder.glob("*.json"))
    assert len(whole) >= 3
    assert not out.exists()
    damaged = whole[0].with_suffix(".segment")
    content = bytearray(damaged.read_bytes())
    content[7] ^= 1
    damaged.write_bytes(content)
    (folder / "00004.json").unlink(missing_ok=True)  # Written, but not recorded as complete.
    left = len(list(folder.glob("*.json"))) - 1

    report = many([(clip, out)], model, resume=True)
    assert report.videos[0].resumed == left
    assert report.videos[0].frames_new == 54
    assert times_and_hashes(out) == one_run
    assert not folder.exists()

    before = out.stat().st_mtime_ns
    again = many([(clip, out)], model, resume=True)
    assert again.videos[0].notes == ["the output was complete already"]
    assert out.stat().st_mtime_ns == before

    folder.mkdir()  # As after a kill between the join and the removal of the segments.
    again = many([(clip, out)], model, resume=True)
    assert again.failures == []
    assert out.stat().st_mtime_ns > before
    assert not folder.exists()
    with pytest.raises(VideoError, match=r"out\.mkv exists already: keep results with --resume"):
        many([(clip, out)], model)
    before = out.stat().st_mtime_ns
    assert many([(clip, out)], model, options=replace(WHOLE, overwrite=True)).failures == []
    assert out.stat().st_mtime_ns > before
    assert times_and_hashes(out) == one_run


def test_segments_of_other_arguments_are_not_reused(cluster, model, clip, tmp_path):
    out = tmp_path / "out.mkv"

    def stop(done, known):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        many([(clip, out)], model, progress=stop)
    report = many([(clip, out)], model, factor=3, resume=True)
    assert report.videos[0].resumed == 0
    assert report.videos[0].frames_out == 165


@pytest.mark.skipif(not files.HAS_FLOCK, reason="flock is of POSIX")
def test_a_second_run_to_the_same_folder_is_refused(cluster, model, clip, one_run, tmp_path):
    refused = []

    def second(done, known):
        if done and not refused:
            before = files_in(tmp_path)
            refused.append(
                run_module(
                    "runtime.cluster", str(clip), "--output", str(tmp_path), "--model",
                    str(model.path), "--backend", "onnxruntime", "--cpus-per-worker", "1",
                    "--factor", "3", "--address", cluster.address,
                )
            )  # fmt: skip
            assert before <= files_in(tmp_path)  # The workers of the first continue meanwhile.

    out = tmp_path / clip.name
    report = many([(clip, out)], model, progress=second)
    assert refused[0].returncode == 1
    assert f"{clip.name}.segments is being written by another run: wait" in refused[0].stderr
    assert "Traceback" not in refused[0].stderr
    assert report.failures == []
    assert times_and_hashes(out) == one_run
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def files_in(folder):
    """Complete segments and their content."""
    return {(p.name, p.read_bytes()) for p in folder.glob("*.segments/*.json")}


@pytest.mark.skipif(not files.HAS_FLOCK, reason="flock is of POSIX")
def test_a_video_that_another_run_is_writing_fails_without_the_others(
    cluster, model, clip, tmp_path
):
    outs = [tmp_path / "a.mkv", tmp_path / "b.mkv"]
    folder = tmp_path / "b.mkv.segments"
    held = []

    def take(done, known):
        if not held:
            folder.mkdir()
            (folder / "00000.segment").write_text("of the other run")
            held.append(lock_file(folder / "lock"))

    report = many([(clip, out) for out in outs], model, workers=1, progress=take)
    held[0].release()
    assert [video.error is None for video in report.videos] == [True, False]
    assert "b.mkv.segments is being written by another run" in report.videos[1].error
    assert sorted(p.name for p in folder.iterdir()) == ["00000.segment", "lock"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mkv", "b.mkv.segments"]


def test_a_video_that_cannot_be_split_is_rendered_as_one_segment(cluster, model, tmp_path):
    source = write(
        tmp_path / "in.webm", 30, size=(50, 70), options={"g": "10", "auto-alt-ref": "0"}
    )
    with av.open(str(source)) as made:
        packet = bytes([p for p in made.demux(video=0) if p.size][14])
    source.write_bytes(source.read_bytes().replace(packet, bytes(len(packet))))
    one, out = tmp_path / "one.mkv", tmp_path / "out.mkv"
    with Interpolator.open(model.path, backend="onnxruntime", threads=1) as vfi:
        there = interpolate_video(source, one, model=vfi, options=WHOLE)
    assert there.damaged
    (video,) = many([(source, out)], model).videos
    assert video.notes[0] == "rendered in one piece, because it has damaged packets"
    assert (video.error, video.segments) == (None, 1)
    assert times_and_hashes(out) == times_and_hashes(one)


def test_a_truncated_video_is_named_and_refused_when_strict(cluster, model, tmp_path):
    source, out = write(tmp_path / "in.mkv", 60, size=(50, 70), options=KEYS), tmp_path / "out.mkv"
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    (video,) = many([(source, out)], model).videos
    assert video.error is None
    assert 10 < video.frames_in < 60
    (note,) = video.notes
    assert re.fullmatch(
        r"the file declares 2\.400 s of video, but contains .*: it is truncated", note
    )
    strict = replace(WHOLE, strict=True)
    (video,) = interpolate_many(
        [(source, tmp_path / "no.mkv")], model, options=strict, share=ONE, segment_seconds=SECONDS
    ).videos
    assert video.error == f"{source}: {note}; get the complete file, or leave out --strict"
    assert not (tmp_path / "no.mkv").exists()


def test_a_missing_model_is_reported_once(cluster, model, clip, tmp_path):
    lost = ModelChoice(tmp_path / "m.onnx", "0")
    with pytest.raises(ClusterError, match=r"a worker cannot start: .*m\.onnx does not exist on"):
        many([(clip, tmp_path / "out.mkv")], lost)
    other = ModelChoice(model.path, "0" * 64)
    with pytest.raises(ClusterError, match="is another file on"):
        many([(clip, tmp_path / "out.mkv")], other)


def test_workers_compute_in_the_given_precision(models, monkeypatch):
    path = models / "frames.onnx"
    choice = ModelChoice(path, file_sha256(path), "openvino", threads=1, precision="fp32")
    with open_on_worker(choice) as vfi:
        assert vfi.backend == "openvino cpu fp32"
        assert list(vfi.notes) == []
    claim_types(monkeypatch, "FP32")
    with pytest.raises(BackendError, match="precision='bf16' was asked for, this CPU has fp32"):
        open_on_worker(replace(choice, precision="bf16"))


def test_more_resources_than_a_machine_has_are_refused(cluster, model, clip, tmp_path):
    with pytest.raises(ClusterError, match="no machine of the cluster has 64 CPUs"):
        interpolate_many([(clip, tmp_path / "o.mkv")], model, share=Share(cpus=64))
    with pytest.raises(ClusterError, match="1 CPU and 1 GPU:"):
        interpolate_many([(clip, tmp_path / "o.mkv")], model, share=Share(cpus=1, gpus=1))


def test_parts_duplicate_outputs_and_wrong_rates_are_refused(cluster, model, clip, tmp_path):
    out = tmp_path / "out.mkv"
    with pytest.raises(VideoError, match="two inputs have the same output"):
        interpolate_many([(clip, out), (clip, out)], model)
    with pytest.raises(FrameError, match=r"factor is 2\.5: give a whole number, 2 or more, or"):
        many([(clip, out)], model, factor=2.5)
    (video,) = many([(clip, out)], model, rate=Fraction(10**6)).videos
    assert "rate 1000000 would make about 2221000 frames of" in video.error
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(VideoError, match="whole videos"):
        interpolate_many([(clip, out)], model, options=VideoOptions(start=Fraction(1)))


def test_after_a_node_is_removed_no_frame_is_missing(cluster, model, clip, one_run, tmp_path):
    """This test comes last, as it removes a node of the cluster."""
    removed = []

    def remove(done, known):
        if done and not removed:
            removed.append(True)
            cluster.remove_node(cluster.second, allow_graceful=False)

    out = tmp_path / "out.mkv"
    report = many([(clip, out)], model, progress=remove)
    assert removed
    assert times_and_hashes(out) == one_run
    assert report.failures == []


def test_the_command(model, clip, one_run, tmp_path):
    """Runs the command in another process with its own cluster."""
    folder = tmp_path / "archive" / "below"
    folder.mkdir(parents=True)
    shutil.copy(clip, folder / "clip.mkv")
    (folder / "notes.txt").write_text("no video")
    run = run_module(
        "runtime.cluster", str(tmp_path / "archive"), "--output", str(tmp_path / "made"),
        "--model", str(model.path), "--backend", "onnxruntime", "--cpus-per-worker", "1",
        "--workers", "1", "--codec", "ffv1", "--cuts", "0", "--segment-seconds", "0.4",
        "--json", str(tmp_path / "said.json"),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert times_and_hashes(tmp_path / "made" / "below" / "clip.mkv") == one_run
    assert "55 -> 110 frames in 6 segments" in run.stdout
    assert "1 of 1 video written: 110 frames in" in run.stdout
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["videos"][0]["segments"] == 6
    assert said["workers"][0]["backend"] == "onnxruntime cpu"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_sigterm_ends_the_command_and_keeps_segments(model, clip, tmp_path):
    made = tmp_path / "made"
    segment = made / "in.mkv.segments" / "00000.json"
    run = signalled(
        signal.SIGTERM, "runtime.cluster", clip, "--output", made, "--model", model.path,
        "--backend", "onnxruntime", "--cpus-per-worker", "1", "--workers", "1", "--codec", "ffv1",
        "--cuts", "none", "--segment-seconds", "0.4", when=segment.exists,
    )  # fmt: skip
    assert run.returncode == 143
    assert run.stderr.endswith(
        "complete segments are kept: continue with --resume\n"
        "python -m runtime.cluster: ended by SIGTERM\n"
    )
    assert "Traceback" not in run.stderr
    assert segment.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "none.onnx"], "none.onnx does not exist"),
        (["--model", "{model}", "--address", "127.0.0.1:9"], "there is no Ray cluster at"),
    ],
)
def test_errors_of_the_command_are_one_sentence(model, clip, tmp_path, arguments, sentence):
    given = [text.format(model=model.path) for text in arguments]
    run = run_module("runtime.cluster", str(clip), "--output", str(tmp_path / "o"), *given)
    assert run.returncode == 1
    assert sentence in run.stderr
    assert "Traceback" not in run.stderr


def test_without_ray_the_extra_is_named(model, clip, tmp_path):
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from runtime.cluster.__main__ import main\n"
        f"main([{str(clip)!r}, '--output', {str(tmp_path / 'o')!r}, '--model', "
        f"{str(model.path)!r}])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 1
    assert "ifrnet-deploy[cluster,video]" in run.stderr


def test_output_paths_of_inputs(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("b.mp4", "deep/a.ts", "deep/c.txt"):
        (tmp_path / "in" / name).touch()
    single = tmp_path / "x.webm"
    single.touch()
    out = Path("out")
    assert sources_in([tmp_path / "in", single], out) == [
        (tmp_path / "in/b.mp4", out / "b.mp4"),
        (tmp_path / "in/deep/a.ts", out / "deep/a.mkv"),
        (single, out / "x.webm"),
    ]
    with pytest.raises(VideoError, match="does not exist"):
        sources_in([tmp_path / "none"], out)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(VideoError, match="contains no video"):
        sources_in([empty], out)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs users of POSIX")
def test_no_engine_is_kept_where_others_can_write(tmp_path, monkeypatch):
    (tmp_path / "m.onnx").write_bytes(b"graph")
    folder = tmp_path / "ifrnet-deploy" / "engines"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"engines cannot be kept on .*, other users can write to"):
        _built_here(tmp_path / "m.onnx", "")


@pytest.mark.parametrize(
    ("errors", "said"), [("stage 1\nerror: no GPU\n", "error: no GPU"), ("", "3")]
)
def test_an_engine_that_cannot_be_built_names_the_command(tmp_path, monkeypatch, errors, said):
    onnx = tmp_path / "m.onnx"
    onnx.write_bytes(b"graph")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    failed = subprocess.CompletedProcess([], 3, "", errors)
    monkeypatch.setattr("runtime.cluster.worker.subprocess.run", lambda *_, **__: failed)
    with pytest.raises(ModelError) as error:
        _built_here(onnx, "--portable")
    assert re.fullmatch(
        rf"no engine could be built on \S+ \({said}\): run .* -m export\.build_engine --onnx "
        r"\S+/m\.onnx .* --portable there",
        str(error.value),
    )


def test_an_engine_for_another_gpu_is_built_once_for_all_workers(tmp_path, monkeypatch):
    """Replaces the builder, and checks its arguments and the number of calls."""
    engine, onnx = tmp_path / "m.engine", tmp_path / "m.onnx"
    engine.write_bytes(b"for another GPU")
    onnx.write_bytes(b"graph")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls, opened = [], []

    def build(command, **_):
        calls.append(command)
        Path(command[command.index("--output") + 1]).write_bytes(b"for this one")
        return subprocess.CompletedProcess(command, 0, "", "")

    def open_(path, **_):
        opened.append(path)
        if Path(path).read_bytes() != b"for this one":
            raise ModelError("built for another GPU")
        return "vfi"

    monkeypatch.setattr("runtime.cluster.worker.subprocess.run", build)
    monkeypatch.setattr(Interpolator, "open", open_)
    choice = ModelChoice(engine, file_sha256(engine), onnx=onnx, build="--portable")
    assert open_on_worker(choice) == "vfi"
    (command,) = calls
    assert command[1:5] == ["-m", "export.build_engine", "--onnx", str(onnx)]
    assert command[-1] == "--portable"
    assert opened == [engine, Path(command[command.index("--output") + 1])]
    assert tmp_path / "cache" in opened[1].parents
    with pytest.raises(ModelError, match="another GPU"):
        open_on_worker(ModelChoice(engine, file_sha256(engine)))

    def fail(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "error: no GPU here\n")

    monkeypatch.setattr("runtime.cluster.worker.subprocess.run", fail)
    with pytest.raises(ModelError, match="no GPU here"):
        open_on_worker(choice)
