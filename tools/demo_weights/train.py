r"""Trains the demo weights: IFRNet small on real clips and exact synthetic motion.

    python tools/demo_weights/train.py --clips CLIPS --photos PHOTOS --minutes 9 \
        --output small.safetensors

CLIPS is a folder of videos, PHOTOS one of photographs. Frames are decoded once and stay in the
memory of the device, where samples are made: a GPU or, for tests, a CPU.
docs/demo_weights.md describes the data, the time budget, checkpoints and the expected speed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

# On a machine without pip neither the tools nor the packages are installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.environment import check_writable
from demo_weights.batches import BatchMaker
from demo_weights.budget import Budget
from demo_weights.clips import Clip, find_clips, find_photos, require_av
from demo_weights.draws import Draws
from demo_weights.errors import TrainingError
from demo_weights.pack import MIB, pack, unpack
from demo_weights.run import TrainingRun, state_path
from demo_weights.store import FrameStore, free_memory, load_store
from demo_weights.synthetic import SyntheticMotion
from demo_weights.trainer import Settings, Trainer, initialise, load_state
from demo_weights.triplets import Triplets
from demo_weights.validation import Validation
from ifrnet_model import VARIANTS, CheckpointError, IFRNet, load_checkpoint
from runtime.errors import InterpolationError

BYTES_PER_PIXEL = {"bf16": 4000, "float32": 5000}
"""Precision -> bytes of a training step for each pixel of its samples. Autograd stores 1150 and
1780 of them, the rest is for temporary memory of single operations."""

BATCH_MEMORY = 0.6
"""Share of the free memory, after the frames, that `--batch auto` plans for a step."""

LARGEST_BATCH = {"cuda": 64, "cpu": 4}
HELD_OUT_EVERY = 10


def chosen_device(name: str) -> torch.device:
    """The device for --device.

    Raises:
        TrainingError: If CUDA is asked for and not available.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise TrainingError(
            f"--device cuda: PyTorch {torch.__version__} finds no CUDA GPU: install a PyTorch "
            "built for CUDA and check nvidia-smi, or give --device cpu"
        )
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")


def chosen_precision(name: str, device: torch.device) -> str:
    """The precision for --precision: bfloat16 on GPUs that compute in it, else float32."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def chosen_batch(text: str, crop: int, precision: str, device: torch.device) -> int:
    """The samples a step for --batch: a number, or what fits into the free memory.

    Raises:
        TrainingError: If it is neither "auto" nor a number above 0, or not one sample fits.
    """
    if text != "auto":
        if not text.isdecimal() or int(text) == 0:
            raise TrainingError(f"--batch {text}: give auto or a whole number above 0")
        return int(text)
    fits = int(BATCH_MEMORY * free_memory(device) / (BYTES_PER_PIXEL[precision] * crop**2))
    if fits == 0:
        raise TrainingError(
            f"the memory left beside the frames is too small for a crop of {crop} pixels: lower "
            "--frames-memory and --short-side, or --crop"
        )
    batch = min(fits, LARGEST_BATCH[device.type])
    return batch if batch < 8 else batch // 8 * 8


def held_out(clips: Sequence[Clip], asked: Sequence[str]) -> tuple[str, ...]:
    """Names of the clips to validate on: those asked for, else every tenth, but one at least.

    Raises:
        TrainingError: If a name is unknown or no clip is left to train on.
    """
    names = [clip.name for clip in clips]
    for name in asked:
        if name not in names:
            raise TrainingError(
                f"--held-out {name}: there is no such clip, choose from {', '.join(names)}"
            )
    chosen = tuple(asked) or tuple(names[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]) or (names[-1],)
    if set(chosen) == set(names):
        raise TrainingError(
            f"all clips are held out for validation ({', '.join(names)}): add a clip to train on"
        )
    return chosen


def start_network(start: str, seed: int) -> IFRNet:
    """The network to start from: a checkpoint, or initial weights for "none".

    Raises:
        CheckpointError: If the checkpoint cannot be loaded.
    """
    if start != "none":
        return load_checkpoint(start).network
    torch.manual_seed(seed)
    network = IFRNet(VARIANTS["small"])
    initialise(network)
    return network


def check_arguments(args: argparse.Namespace) -> None:
    """Checks the options, without reading the data.

    Raises:
        TrainingError: If options are missing or do not fit each other.
    """
    given = [args.clips is not None and args.photos is not None, args.packed is not None]
    if given.count(True) != 1:
        raise TrainingError("give the data as --clips and --photos, or as --packed")
    if args.pack is not None:
        if args.packed is not None:
            raise TrainingError("--pack takes --clips and --photos, not --packed")
        return
    if (args.minutes is None) == (args.steps is None):
        raise TrainingError("give the length of the training as --minutes or as --steps")
    if args.output is None or args.output.suffix != ".safetensors":
        raise TrainingError(f"--output {args.output}: name the file of the weights, x.safetensors")
    if args.crop < 32 or args.crop % 16:
        raise TrainingError(f"--crop {args.crop}: give a multiple of 16, at least 32")
    check_writable(args.output, "--output")
    state = state_path(args.output)
    if state.exists() and not args.resume:
        raise TrainingError(
            f"{state} is the checkpoint of an interrupted training: continue it with --resume, or "
            "remove it"
        )


def pack_data(args: argparse.Namespace) -> None:
    """Runs --pack: writes the parts, and prints what else the other machine needs."""
    import av

    packed = pack(
        find_clips(args.clips),
        find_photos(args.photos),
        args.pack,
        short_side=args.short_side,
        part_bytes=int(args.part_mib * MIB),
    )
    print(
        f"{packed.folder}: {packed.clips} clips with {packed.frames} frames, {packed.photos} "
        f"photographs, {packed.bytes / MIB:.1f} MiB in {packed.parts} parts\n"
        "The machine that trains needs Python with torch, numpy, safetensors, pillow and av. Copy "
        "missing packages as wheels; av (about 35 MiB) for Python 3.11 and later with:\n"
        "  python -m pip download --no-deps --only-binary=:all: --python-version 3.12 "
        f"--platform manylinux_2_28_x86_64 av=={av.__version__}"
    )


def train(args: argparse.Namespace, clips_at: Path, photos_at: Path, begun: float) -> None:
    """Checks everything, decodes the clips and trains.

    Raises:
        TrainingError: See the functions that it calls.
    """
    device = chosen_device(args.device)
    state = load_state(state_path(args.output)) if args.resume else None
    clips, photos = find_clips(clips_at), find_photos(photos_at)
    reserved = held_out(clips, args.held_out)
    network = start_network(args.start, args.seed)
    store = load_store(
        clips,
        photos,
        device=device,
        short_side=args.short_side,
        memory=None if args.frames_memory is None else int(args.frames_memory * 2**30),
    )
    precision = chosen_precision(args.precision, device)
    if state is not None and args.batch == "auto":
        batch = state["settings"]["batch"]
    else:
        batch = chosen_batch(args.batch, args.crop, precision, device)
    settings = Settings(args.crop, batch, args.motion, args.rate, args.seed, precision, reserved)
    trainer = Trainer(
        network,
        batch_maker(store, clips, settings),
        settings,
        device=device,
        compiled=args.compile,
    )
    validation = Validation(
        store, [k for k, clip in enumerate(clips) if clip.name in reserved], args.validation_windows
    )
    budget = Budget(
        steps=args.steps,
        minutes=args.minutes,
        spent=0.0 if state is None else state["spent"],
        planned=None if state is None else state["total"],
        begun=begun,
    )
    run = TrainingRun(
        trainer,
        validation,
        budget,
        args.output,
        validations=args.validations,
        checkpoint_s=args.checkpoint_seconds,
    )
    if state is not None:
        settings.check_resumed(state["settings"], run.state_path)
        run.restore(state)
    print(
        f"{device}, {precision}, batch {batch} of {args.crop}x{args.crop}, {len(clips)} clips, "
        f"{len(photos)} photographs, {store.pixels.numel() / 2**30:.2f} GiB of frames, "
        f"held out: {', '.join(reserved)}; {budget.elapsed():.0f} s so far",
        flush=True,
    )
    run_translated(run)


def batch_maker(store: FrameStore, clips: Sequence[Clip], settings: Settings) -> BatchMaker:
    """Makes the BatchMaker of the clips that are not held out and of all photographs."""
    trained = [k for k, clip in enumerate(clips) if clip.name not in settings.held_out]
    photos = range(len(clips), len(store.sizes))
    return BatchMaker(
        Triplets(store, trained, settings.crop),
        SyntheticMotion(store, trained, photos, size=settings.crop, motion=settings.motion),
        settings.batch,
        Draws(store.device, settings.seed),
    )


def run_translated(run: TrainingRun) -> None:
    """Runs the training.

    Raises:
        TrainingError: If the GPU is out of memory, and as `TrainingRun.run`.
    """
    torch.backends.cudnn.benchmark = True
    try:
        run.run()
    except torch.OutOfMemoryError as error:
        batch = run.trainer.settings.batch
        raise TrainingError(
            f"a step with a batch of {batch}, or a validation, does not fit into the memory of "
            f"the GPU: give --batch {max(1, batch // 2)} or fewer pixels (--short-side)"
        ) from error


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group("data")
    data.add_argument("--clips", type=Path, metavar="DIR", help="folder of video files")
    data.add_argument("--photos", type=Path, metavar="DIR", help="folder of photographs")
    data.add_argument(
        "--packed",
        type=Path,
        metavar="DIR",
        help="folder of --pack, in place of --clips and --photos",
    )
    data.add_argument(
        "--pack", type=Path, metavar="DIR", help="pack clips and photographs into DIR and exit"
    )
    data.add_argument(
        "--part-mib",
        type=float,
        default=50,
        metavar="MIB",
        help="size of a packed part (default 50)",
    )
    data.add_argument(
        "--short-side", type=int, default=720, metavar="N",
        help="maximum shorter side of the frames in pixels; larger ones are scaled (default 720)",
    )  # fmt: skip
    data.add_argument(
        "--frames-memory", type=float, metavar="GIB",
        help="memory limit of all frames (default: half of the free memory)",
    )  # fmt: skip
    data.add_argument(
        "--held-out", nargs="+", default=[], metavar="CLIP",
        help="names of the clips for validation (default: every tenth)",
    )  # fmt: skip
    length = parser.add_argument_group("length")
    length.add_argument(
        "--minutes", type=float, metavar="N", help="time limit, from reading the clips to the end"
    )
    length.add_argument("--steps", type=int, metavar="N", help="number of training steps")
    length.add_argument("--resume", action="store_true", help="continue from the checkpoint")
    length.add_argument(
        "--checkpoint-seconds", type=float, default=60, metavar="S",
        help="seconds between two checkpoints (default 60)",
    )  # fmt: skip
    length.add_argument(
        "--validations", type=int, default=4, metavar="N",
        help="number of validations, evenly spread (default 4)",
    )  # fmt: skip
    length.add_argument(
        "--validation-windows", type=int, default=32, metavar="N",
        help="maximum number of windows in a validation (default 32)",
    )  # fmt: skip
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument(
        "--start", default="demo", metavar="FILE", help="initial weights, or none (default demo)"
    )
    recipe.add_argument(
        "--crop",
        type=int,
        default=224,
        metavar="N",
        help="side of a sample in pixels (default 224)",
    )
    recipe.add_argument(
        "--batch", default="auto", metavar="N", help="samples in a step, or auto (default auto)"
    )
    recipe.add_argument(
        "--motion", type=float, default=40.0, metavar="N",
        help="maximum motion of synthetic samples in pixels (default 40)",
    )  # fmt: skip
    recipe.add_argument(
        "--rate", type=float, default=3e-4, metavar="X", help="learning rate (default 0.0003)"
    )
    recipe.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default 0)")
    recipe.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="default auto: a GPU if there is one",
    )
    recipe.add_argument(
        "--precision", choices=("auto", "bf16", "float32"), default="auto",
        help="type of encoder and decoders (default auto: bf16 where the GPU supports it)",
    )  # fmt: skip
    recipe.add_argument("--compile", action="store_true", help="compile network and loss")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="path of the weights to write, .safetensors"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; an error is one sentence on stderr and exit status 1."""
    begun = time.monotonic()
    args = parsed(arguments)
    try:
        require_av()
        check_arguments(args)
        if args.pack is not None:
            pack_data(args)
        elif args.packed is None:
            train(args, args.clips, args.photos, begun)
        else:
            with tempfile.TemporaryDirectory() as unpacked:
                train(args, *unpack(args.packed, Path(unpacked)), begun)
    except (TrainingError, CheckpointError, InterpolationError) as error:
        sys.exit(f"train.py: {error}")


if __name__ == "__main__":
    main()
