"""A check as a person reads it, and as a program does."""

import dataclasses
import math
from typing import Any

from pipelines.tpu_check.check import Report, gib


def as_text(report: Report) -> str:
    """Lines of a name and a value."""
    compiled, where, bounds = report.compiled, report.where, report.roofline
    rows = [
        ("slice", f"{where}: {where.chips} chips, {where.cores} cores, "
                  f"{where.hosts} host{'s' * (where.hosts > 1)}"),
        ("step", f"{compiled.batch_per_core} images a core, {compiled.precision}, "
                 f"{compiled.parameters:,} weights"),
        ("compiled", f"in {compiled.seconds:.0f} s by libtpu {compiled.compiler}"),
        ("peak memory", f"{gib(compiled.peak_bytes)} of {gib(where.core_memory)}"),
        ("arithmetic", f"{compiled.flops / 1e9:,.1f} GFLOP"),
        ("bytes accessed", f"{compiled.bytes_accessed / 1e9:,.3f} GB, of which HBM "
                           f"{compiled.hbm_bytes / 1e9:,.3f} GB"),
        ("arithmetic intensity", f"{_intensity(report):,.0f} FLOP per byte of HBM; the ridge is at "
                                 f"{where.core_flops / where.core_bandwidth:,.0f}"),
        ("all-reduce", f"{compiled.all_reduce_bytes / 1e6:,.2f} MB"),
        ("roofline step", f"{bounds.step_seconds * 1e3:,.3f} ms, bound by {bounds.bound}: at most "
                          f"{bounds.of_peak:.0%} of the peak"),
        ("roofline images/s", f"{report.images_per_second:,.0f} a core, "
                              f"{report.images_per_second * where.cores:,.0f} in all"),
        ("without vector memory", f"{bounds.accessed_seconds * 1e3:,.3f} ms, were all bytes "
                                  "accessed those of HBM"),
        ("largest batch", _largest(report)),
        ("input", _input(report)),
        ("epoch", f"{report.examples:,} images in {report.epoch_seconds:.3g} s, {_price(report)}"),
        *(("heaviest in HBM", f"{one.bytes / 1e6:,.1f} MB ({one.bytes / compiled.hbm_bytes:.0%})  "
                              f"{one.name}") for one in compiled.heaviest if compiled.hbm_bytes),
    ]  # fmt: skip
    lines = [f"{report.recipe}: fits, and every operation compiles; figures are of one core"]
    return "\n".join([*lines, *(f"  {name:<22} {value}" for name, value in rows if value)])


def _intensity(report: Report) -> float:
    moved = report.compiled.hbm_bytes
    return report.compiled.flops / moved if moved else math.inf


def _largest(report: Report) -> str:
    if not report.largest_batch:
        return ""
    end = "an eighth more does not fit" if report.largest_is_limit else "where the search ended"
    return f"{report.largest_batch:,} images a core; {end}"


def _input(report: Report) -> str:
    cores = math.ceil(report.host_rate / report.input_rate)
    cpus = report.where.host_cpus
    verdict = "enough" if cores <= cpus else "too few: the host, not the TPU, sets the pace"
    return (
        f"a host must deliver {report.host_rate:,.0f} images/s; a CPU here delivers "
        f"{report.input_rate:,.0f}, so {cores:,} CPUs; the host has {cpus}, {verdict}"
    )


def _price(report: Report) -> str:
    if report.epoch_price is None:
        return f"no price of {report.where.generation} in the table"
    return f"{report.epoch_price:.2g} USD at {report.price:g} USD a chip hour"


def as_data(report: Report) -> dict[str, Any]:
    """Figures by name; those of `compiled` are of one core and one step."""
    bounds = report.roofline
    return {
        "recipe": report.recipe,
        "topology": str(report.where),
        "chips": report.where.chips,
        "cores": report.where.cores,
        "hosts": report.where.hosts,
        "compiled": dataclasses.asdict(report.compiled),
        "hbm_per_core": report.where.core_memory,
        "flops_per_hbm_byte": _intensity(report) if report.compiled.hbm_bytes else None,
        "compute_seconds": bounds.compute_seconds,
        "memory_seconds": bounds.memory_seconds,
        "network_seconds": bounds.network_seconds,
        "step_seconds": bounds.step_seconds,
        "accessed_seconds": bounds.accessed_seconds,
        "bound": bounds.bound,
        "of_peak": bounds.of_peak,
        "images_per_second_per_core": report.images_per_second,
        "largest_batch_per_core": report.largest_batch or None,
        "largest_batch_is_limit": report.largest_is_limit,
        "host_images_per_second": report.host_rate,
        "input_images_per_second_per_cpu": report.input_rate,
        "epoch_examples": report.examples,
        "epoch_seconds": report.epoch_seconds,
        "epoch_usd": report.epoch_price,
    }
