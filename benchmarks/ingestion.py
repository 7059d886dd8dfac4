"""Measures ingestion: how fast, against what, and how much memory.

    python -m benchmarks.ingestion throughput --photos DIR
    python -m benchmarks.ingestion scale --photos DIR
    python -m benchmarks.ingestion reading --photos DIR
    python -m benchmarks.ingestion augmentation --photos DIR
    python -m benchmarks.ingestion near-duplicates --photos DIR

DIR is a folder of class folders. Each command prints ratios of figures that were taken side by side
in one run. Nothing here passes or fails: machines differ.
"""

import io
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
import simplejpeg
from PIL import Image

from components.ingest_examples.config import IngestConfig, PhotosConfig
from components.ingest_examples.photos import encode, perceptual_hash, to_square
from components.ingest_examples.splits import NEAR_DUPLICATE_BITS

CORES = os.cpu_count() or 1
LABS_SHARDS = 16
PHOTOS = click.option("--photos", type=click.Path(path_type=Path, exists=True), required=True)
SIZE = click.option("--image-size", default=192, show_default=True)
ROUNDS = click.option("--rounds", default=3, show_default=True)


@click.group()
def main() -> None:
    """Measures ingestion."""


def show(name: str, value: str) -> None:
    """Prints one figure."""
    print(f"{name:<52} {value}", flush=True)


def rate(count: int, seconds: float) -> str:
    """A throughput as text."""
    return f"{count / seconds:,.0f} images/s"


def files_below(photos: Path) -> list[Path]:
    """Every photo of a folder of class folders, in order."""
    return sorted(path for path in photos.glob("*/*") if path.suffix.lower() in (".jpg", ".jpeg"))


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the progress lines of a step out of the figures."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        stdout, sys.stdout = sys.stdout, nowhere
        try:
            yield
        finally:
            sys.stdout = stdout


def median_times(rounds: int, ways: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Runs all ways in turn, several times over; the median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(way())
    return {name: statistics.median(taken) for name, taken in times.items()}


def bare_loop(jpegs: Sequence[bytes], size: int) -> float:
    """Decodes, resizes and encodes; seconds of one process."""
    began = time.perf_counter()
    for jpeg in jpegs:
        encode(to_square(simplejpeg.decode_jpeg(jpeg), size))
    return time.perf_counter() - began


def _loop_in_process(paths: Sequence[Path], size: int, ready: Any, go: Any, times: Any) -> None:
    jpegs = [path.read_bytes() for path in paths]
    ready.release()
    go.wait()
    times.put(bare_loop(jpegs, size))


def ceiling(paths: Sequence[Path], size: int) -> float:
    """The bare loop on all cores, everything in memory: seconds of the slowest process."""
    context = get_context("spawn")
    ready, go, times = context.Semaphore(0), context.Event(), context.Queue()
    workers = [
        context.Process(target=_loop_in_process, args=(paths[n::CORES], size, ready, go, times))
        for n in range(CORES)
    ]
    for worker in workers:
        worker.start()
    for _ in workers:
        ready.acquire()
    go.set()
    taken = max(times.get() for _ in workers)
    for worker in workers:
        worker.join()
    return float(taken)


def labs_way(paths: Sequence[Path], size: int, *, mended: bool = False) -> float:
    """The lab's notebook: tf.data decodes, resizes and encodes, one writer; seconds.

    Its arithmetic and its writer are kept as they are, its reading of the whole batch for each
    example included, which costs the square of the length of a shard.

    Args:
        paths: Photos, in folders named after their class.
        size: Side of the images, in pixels.
        mended: Read each batch once, which is what a careful reader of the notebook would do.

    Source: 03_Flower_pictures_to_TFRecords.ipynb of GoogleCloudPlatform/training-data-analyst.
    """
    import tensorflow as tf

    names = np.array(sorted({path.parent.name.encode() for path in paths}))

    def read(path: Any) -> Any:
        label = tf.strings.split(tf.expand_dims(path, -1), sep="/").values[-2]
        return tf.io.decode_jpeg(tf.io.read_file(path)), label

    def resize_and_crop(image: Any, label: Any) -> Any:
        shape = tf.shape(image)
        high, wide = shape[0], shape[1]
        image = tf.cond(
            (high * size) / (wide * size) < 1,
            lambda: tf.image.resize(image, [high * size / high, wide * size / high]),
            lambda: tf.image.resize(image, [high * size / wide, wide * size / wide]),
        )
        shape = tf.shape(image)
        top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
        return tf.image.crop_to_bounding_box(image, top, left, size, size), label

    def recompress(image: Any, label: Any) -> Any:
        pixels = tf.cast(image, tf.uint8)
        return tf.io.encode_jpeg(pixels, optimize_size=True, chroma_downsampling=False), label

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        data = tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
        for function in (read, resize_and_crop, recompress):
            data = data.map(function, num_parallel_calls=tf.data.AUTOTUNE)
        for shard, batch in enumerate(data.batch(-(-len(paths) // LABS_SHARDS))):
            images, labels = (_Once(part) for part in batch) if mended else batch
            count = images.numpy().shape[0]
            with tf.io.TFRecordWriter(f"{folder}/{shard:02d}-{count}.tfrec") as writer:
                for index in range(count):
                    example = _labs_example(images.numpy()[index], labels.numpy()[index], names)
                    writer.write(example.SerializeToString())
        return time.perf_counter() - began


class _Once:
    """A tensor that is read once."""

    def __init__(self, tensor: Any) -> None:
        self._array = tensor.numpy()

    def numpy(self) -> Any:
        return self._array


def _labs_example(jpeg: bytes, label: bytes, names: Any) -> Any:
    import tensorflow as tf

    number = np.argmax(names == label)
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[jpeg])),
        "class": tf.train.Feature(int64_list=tf.train.Int64List(value=[number])),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature))


def _in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a process without TensorFlow, as the step's own is."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def ours(photos: Path, size: int) -> tuple[float, float]:
    """All of `ingest`: listing, processes, duplicates, shards, ledger and page.

    Returns:
        Seconds in all, and of the stage that prepares photos.
    """
    from components.ingest_examples import ingest as module

    config = IngestConfig(image_size=size, max_reject_fraction=1.0)
    taken = []
    prepare = module._prepare

    def timed(*arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return prepare(*arguments)
        finally:
            taken.append(time.perf_counter() - began)

    module._prepare = timed  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder, quiet():
        began = time.perf_counter()
        output = Path(folder)
        places = output / "examples", output / "report.html"
        module.ingest(PhotosConfig(str(photos)), config, *places)
        return time.perf_counter() - began, taken[0]


@main.command()
@PHOTOS
@SIZE
@ROUNDS
def throughput(photos: Path, image_size: int, rounds: int) -> None:
    """Ingestion against the lab's way and against a bare loop."""
    paths = files_below(photos)
    labs_way(paths[:256], image_size)  # TensorFlow sets itself up once.
    preparing = []

    def ingest_once() -> float:
        seconds, stage = _in_new_process(ours, photos, image_size)
        preparing.append(stage)
        return float(seconds)

    times = median_times(
        rounds,
        {
            "lab": lambda: labs_way(paths, image_size),
            "mended": lambda: labs_way(paths, image_size, mended=True),
            "ours": ingest_once,
            "ceiling": lambda: ceiling(paths, image_size),
        },
    )
    stage = statistics.median(preparing)
    show("photos, cores, image size", f"{len(paths):,}, {CORES}, {image_size} px")
    show("the lab's way", rate(len(paths), times["lab"]))
    show("  with each batch read once", rate(len(paths), times["mended"]))
    show("ingest, from the folder to the data page", rate(len(paths), times["ours"]))
    show("  of it reading and preparing photos", rate(len(paths), stage))
    show("bare loop: decode, resize, encode in memory", rate(len(paths), times["ceiling"]))
    for name, theirs in (("", "lab"), (", each batch read once", "mended")):
        show(f"ingest / the lab's way{name}", f"{times[theirs] / times['ours']:.2f}")
        show(f"bare loop / the lab's way{name}", f"{times[theirs] / times['ceiling']:.2f}")
    show("ingest / bare loop", f"{times['ceiling'] / times['ours']:.2f}")
    show("reading and preparing / bare loop", f"{times['ceiling'] / stage:.2f}")


def multiply(photos: Path, folder: Path, count: int) -> None:
    """Writes `count` photos: those of a folder over and over, each copy with another pixel."""
    sources = files_below(photos)
    with get_context("spawn").Pool(CORES) as pool:
        jobs = (
            (path, folder, number)
            for number, path in zip(range(count), _cycle(sources), strict=False)
        )
        for _ in pool.imap_unordered(_write_copy, jobs, chunksize=64):
            pass


def _cycle(paths: Sequence[Path]) -> Iterator[Path]:
    while True:
        yield from paths


def _write_copy(job: tuple[Path, Path, int]) -> None:
    path, folder, number = job
    pixels = simplejpeg.decode_jpeg(path.read_bytes())
    pixels[number % pixels.shape[0], (number // 7) % pixels.shape[1]] ^= 0xFF
    target = folder / path.parent.name / f"{number:07d}.jpg"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(simplejpeg.encode_jpeg(pixels, quality=88, colorsubsampling="420"))


class PeakMemory:
    """The largest memory of a process and all below it, shared pages counted once.

    Adds up the proportional set sizes, ten times a second.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = 0

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self.peak = max(self.peak, sum(map(_memory, _tree(self._pid))))


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = file.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _tree(int(child))


def _memory(pid: int) -> int:
    """Proportional set size in bytes; 0 for a process that has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


@main.command()
@PHOTOS
@SIZE
@click.option("--small", default=3_000, show_default=True)
@click.option("--large", default=100_000, show_default=True)
@click.option("--scratch", type=click.Path(path_type=Path), default=None, help="Keeps the copies.")
def scale(photos: Path, image_size: int, small: int, large: int, scratch: Path | None) -> None:
    """Memory and time per image of a small and of a large data set."""
    with tempfile.TemporaryDirectory() as folder:
        root = scratch or Path(folder)
        figures = {}
        for count in (small, large):
            copies = root / f"copies-{count}"
            if not copies.exists():
                multiply(photos, copies, count)
            figures[count] = _ingest_in_process(copies, image_size)
            seconds, memory = figures[count]
            each = f"{seconds:.1f} s, {1e3 * seconds / count:.3f} ms each"
            show(f"{count:,} photos", f"{each}, peak {memory / 2**20:.0f} MiB")
        (fast, little), (slow, much) = figures[small], figures[large]
        show("time per image, large / small", f"{slow / large / (fast / small):.3f}")
        show("more memory", f"{(much - little) / 2**20:.0f} MiB")


def _ingest_in_process(photos: Path, size: int) -> tuple[float, int]:
    """Runs the step as a user does; seconds that it says it took, and peak memory in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "components.ingest_examples", f"--images={photos}"]
        command += [f"--output={folder}/out", f"--image-size={size}", "--max-reject-fraction=1"]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:  # noqa: S603
            with PeakMemory(process.pid) as memory:
                code = process.wait()
            assert code == 0, f"ingestion ended with {code}"
        return time.perf_counter() - began, memory.peak


@main.command()
@PHOTOS
@SIZE
@ROUNDS
def reading(photos: Path, image_size: int, rounds: int) -> None:
    """Shards parsed and decoded as the trainer does it, against bare decoding."""
    import tensorflow as tf

    from components.common import image_ops
    from components.common.dataset import load_dataset
    from components.common.examples import parse_features
    from components.common.tfrecords import read_shard
    from components.train_model.input_pipeline import decode_examples

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        _ingest_into(photos, output, image_size)
        dataset = load_dataset(output / "examples")
        jpegs = [
            parse_features(tf.constant(payload))[0].numpy()
            for shard in dataset.shards("train")
            for payload in read_shard(shard)
        ]
        decoded = tf.data.Dataset.from_tensor_slices(jpegs).map(
            image_ops.decode_jpeg, num_parallel_calls=CORES, deterministic=False
        )
        times = median_times(
            rounds,
            {
                "warm up": lambda: _drain(decoded),
                "bare": lambda: _drain(decoded),
                "shards": lambda: _drain(decode_examples(dataset, "train")),
            },
        )
    count = _PASSES * len(jpegs)
    show("images, cores", f"{_PASSES} x {len(jpegs):,} of {image_size} px, {CORES}")
    show("bare decoding from memory, tf.data", rate(count, times["bare"]))
    show("shards: read, parsed, decoded", rate(count, times["shards"]))
    show("shards / bare decoding", f"{times['bare'] / times['shards']:.2f}")


# So many that the start of a pipeline does not count.
_PASSES = 4


def _drain(data: Any) -> float:
    began = time.perf_counter()
    for _ in data.repeat(_PASSES).batch(128):
        pass
    return time.perf_counter() - began


def _ingest_into(photos: Path, output: Path, image_size: int) -> None:
    from components.ingest_examples.ingest import ingest

    config = IngestConfig(image_size=image_size, max_reject_fraction=1.0)
    with quiet():
        ingest(PhotosConfig(str(photos)), config, output / "examples", output / "report.html")


@main.command()
@PHOTOS
@SIZE
@ROUNDS
@click.option("--copies", default=2, show_default=True)
def augmentation(photos: Path, image_size: int, rounds: int, copies: int) -> None:
    """Augmented copies per second, of all cores and of one thread."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _ingest_into(photos, root, image_size)
        made = _in_new_process(_augment, root, copies, CORES)[1]
        times = median_times(
            rounds,
            {
                "all": lambda: float(_in_new_process(_augment, root, copies, CORES)[0]),
                "one": lambda: float(_in_new_process(_augment, root, copies, 1)[0]),
            },
        )
    show("copies, cores", f"{made:,} of {image_size} px, {CORES}")
    show("augment, all cores", rate(made, times["all"]))
    show("augment, one core", rate(made, times["one"]))
    show("all cores / one core", f"{times['one'] / times['all']:.2f}")


def _augment(root: Path, copies: int, cores: int) -> tuple[float, int]:
    """Augments on so many cores; seconds and the number of copies."""
    os.sched_setaffinity(0, range(cores))
    import tensorflow  # noqa: F401 - its start is no part of the figure

    from components.augment_examples.augment import augment
    from components.augment_examples.config import AugmentConfig

    with tempfile.TemporaryDirectory() as folder, quiet():
        place = Path(folder)
        began = time.perf_counter()
        config = AugmentConfig(copies=copies)
        dataset = augment(root / "examples", config, place / "out", place / "report.html")
        return time.perf_counter() - began, dataset.counts["train"] * copies // (1 + copies)


def _saved(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def _cropped(image: Image.Image, part: float) -> Image.Image:
    x, y = round(image.width * part), round(image.height * part)
    return image.crop((x, y, image.width - x, image.height - y))


def _marked(image: Image.Image) -> Image.Image:
    marked = image.copy()
    marked.paste((255, 255, 255), (0, 0, image.width // 10, image.height // 10))
    return marked


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved again, quality 50": lambda image: _saved(image, 50),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brighter by 20 %": lambda image: image.point(lambda value: min(255, value * 1.2)),
    "cropped by 2 %": lambda image: _cropped(image, 0.02),
    "cropped by 5 %": lambda image: _cropped(image, 0.05),
    "a watermark of 10 x 10 %": _marked,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


@main.command("near-duplicates")
@PHOTOS
def near_duplicates(photos: Path) -> None:
    """How many edited copies of the photos are recognised.

    A copy is recognised when its perceptual hash is at most 8 of 64 bits from the original's.
    """

    def hash_of(image: Image.Image) -> int:
        return perceptual_hash(np.asarray(image.convert("RGB")))

    images = [Image.open(path).convert("RGB") for path in files_below(photos)[::3]]
    hashes = [hash_of(image) for image in images]
    for name, edit in EDITS.items():
        found = sum(
            (hash_of(edit(image)) ^ own).bit_count() <= NEAR_DUPLICATE_BITS
            for image, own in zip(images, hashes, strict=True)
        )
        show(f"recall: {name}", f"{found / len(images):.1%} of {len(images):,}")
    with tempfile.TemporaryDirectory() as folder:
        _show_known(photos, Path(folder))


def _show_known(photos: Path, output: Path) -> None:
    """What ingestion finds in the photos themselves."""
    from components.ingest_examples.ingest import ingest

    config = IngestConfig(max_reject_fraction=1.0)
    with quiet():
        result = ingest(
            PhotosConfig(str(photos)), config, output / "examples", output / "report.html"
        )
    digests: dict[bytes, int] = {}
    for path in files_below(photos):
        content = path.read_bytes()
        digests[content] = digests.get(content, 0) + 1
    copies = sum(number - 1 for number in digests.values())
    rejected = result.rejected
    pairs = rejected["exact duplicate"] + rejected["the same photo under two labels"] // 2
    show("exact pairs found / there are", f"{pairs} / {copies}")
    show("groups that look alike", f"{len(result.near_duplicates)}")


if __name__ == "__main__":
    main()
