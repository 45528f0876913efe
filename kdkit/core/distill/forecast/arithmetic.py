"""From a workload and a number of devices to time, memory and disk, line by line."""

from __future__ import annotations

from kdkit.core.base.result import format_size
from kdkit.core.distill.forecast.devices import (
    HOST_MEMORY,
    MFU,
    NETWORK,
    PROCESSORS,
    TOGETHER,
    USABLE,
    Device,
    Target,
)
from kdkit.core.distill.forecast.workload import Forecast, Limit, Line, TeacherLoad, Workload

ADAMW_BYTES = 28
"""Memory traffic of AdamW for one float32 parameter: weight, two moments read and written, gradient read."""
OVERLAPPED = ("data",)
"""Parts of a measured step that more devices do not make shorter."""


def forecast(work: Workload, target: Target) -> Forecast:
    """Predict a run on ``target``.

    For a device of the table, computation takes FLOPs / (devices x peak x ``MFU``). For more of this machine, measured
    seconds are divided. Devices wait for each other's gradients after the computation, which is an upper limit: DDP and
    FSDP2 overlap part of it.
    """
    lines = list[Line]()
    memory = _memory(work, target, lines)
    step = _step_seconds(work, target, lines)
    training = step * work.steps
    lines.append(Line("training", f"{work.steps} steps x {step:.3g} s", format_time(training)))
    extraction = _extraction(work, target, lines)
    disk = _disk(work, lines)
    hours = target.count * (training + sum(extraction.values())) / 3600
    lines.append(
        Line("device hours", f"{target.count} x {format_time(training + sum(extraction.values()))}", f"{hours:,.1f}")
    )
    if target.device is not None:
        available = int(USABLE * target.device.memory)
    else:
        available = work.measured.memory if work.measured else 0
    limits = _limits(work, target, step, sum(memory.values()), available, sum(disk.values()))
    return Forecast(
        target.title, target.count, step, training, extraction, memory, available, disk, hours, tuple(lines), limits
    )


def _memory(work: Workload, target: Target, lines: list[Line]) -> dict[str, int]:
    """Bytes on one device."""
    student, count = work.student, target.count
    parts = count if work.shard else 1
    by = f" / {parts} (sharded)" if parts > 1 else ""
    millions, trained = f"{student.parameters / 1e6:,.1f} M", f"{student.trained / 1e6:,.1f} M"
    each = student.trained_bytes / max(1, student.trained)
    memory = {
        "parameters": student.parameter_bytes // parts,
        "gradients": student.trained_bytes // parts,
        "optimizer state": 2 * student.trained_bytes // parts,
    }
    average = student.parameter_bytes / max(1, student.parameters)
    _say(lines, "parameters", f"{millions} x {average:.3g} bytes{by}", memory)
    _say(lines, "gradients", f"{trained} x {each:.3g} bytes{by}", memory)
    _say(lines, "optimizer state", f"{trained} x 2 moments x {each:.3g} bytes{by}", memory)
    if work.averaged:
        memory["moving average"] = student.parameter_bytes // parts
        _say(lines, "moving average", f"{millions} x {average:.3g} bytes{by}", memory)
    if student.held:
        memory["live teachers and frozen directions"] = student.held
        _say(lines, "live teachers and frozen directions", "on every device", memory)
    rows = -(-work.batch_size // count)
    at_a_time = rows
    if isinstance(work.micro_batch, int):
        at_a_time = min(rows, work.micro_batch)
    elif work.micro_batch == "auto" and target.device is not None:
        free = USABLE * target.device.memory - sum(memory.values())
        at_a_time = max(1, min(rows, int(0.5 * free / max(1, student.activations))))
    memory["activations"] = at_a_time * student.activations
    how = f"{at_a_time} of {rows} samples at a time" if at_a_time < rows else f"{rows} samples"
    _say(lines, "activations", f"{how} x {format_size(student.activations)}", memory)
    memory["outputs and targets"] = work.batch_size * student.output_bytes
    _say(lines, "outputs and targets", f"{work.batch_size} samples x {format_size(student.output_bytes)}", memory)
    total = " + ".join(format_size(size) for size in memory.values())
    lines.append(Line("memory of a device", total, format_size(sum(memory.values()))))
    return memory


def _step_seconds(work: Workload, target: Target, lines: list[Line]) -> float:
    student, count = work.student, target.count
    again = 1.0
    if work.micro_batch is not None:
        again = 4 / 3  # one more forward pass, a third of forward and backward
    flops = again * work.batch_size * student.flops + student.loss_flops
    more = " x 4/3 (forward pass twice)" if again > 1 else ""
    losses = f"{format_flops(student.loss_flops)} of the losses"
    lines.append(
        Line(
            "FLOPs of a step",
            f"{work.batch_size} samples x {format_flops(student.flops)}{more} + {losses}",
            format_flops(flops),
        )
    )
    if target.device is None:
        return _measured_seconds(work, target, lines)
    return _computed_seconds(work, target.device, count, flops, lines)


def _computed_seconds(work: Workload, device: Device, count: int, flops: float, lines: list[Line]) -> float:
    student, peak = work.student, device.peak(work.precision)
    compute = flops / (count * peak * MFU)
    kind = "bf16" if work.precision == "bf16" else "float32"
    lines.append(
        Line(
            "computation",
            f"{format_flops(flops)} / ({count} x {peak / 1e12:,.4g} TFLOP/s {kind} x {MFU:.0%} assumed utilization)",
            f"{compute:.3g} s",
        )
    )
    parts = count if work.shard else 1
    optimizer = student.trained * ADAMW_BYTES / parts / device.bandwidth
    lines.append(
        Line(
            "optimizer",
            f"{student.trained / 1e6:,.1f} M x {ADAMW_BYTES} bytes{f' / {parts}' if parts > 1 else ''} / "
            f"{device.bandwidth / 1e9:,.0f} GB/s",
            f"{optimizer:.3g} s",
        )
    )
    waiting = 0.0
    if count > 1:
        times, size = (3, student.parameter_bytes) if work.shard else (2, student.trained_bytes)
        link = device.link if count <= TOGETHER else min(device.link, NETWORK)
        waiting = times * (count - 1) / count * size / link
        what = "gather twice, scatter once" if work.shard else "gradients, sent and received"
        lines.append(
            Line(
                "between devices",
                f"{times} ({what}) x {count - 1}/{count} x {format_size(size)} / {link / 1e9:,.0f} GB/s",
                f"{waiting:.3g} s",
            )
        )
    return compute + optimizer + waiting


def _measured_seconds(work: Workload, target: Target, lines: list[Line]) -> float:
    measured = work.measured
    assert measured is not None, "a forecast for this machine needs a measurement on it"
    scale = target.count / measured.processes
    shared = 0.0
    fixed = dict[str, float]()
    for name, seconds in measured.parts.items():
        if name in OVERLAPPED or (name in ("optimizer", "sync") and not work.shard):
            fixed[name] = seconds
        else:
            shared += seconds
    rest = max(0.0, measured.step_seconds - shared - sum(fixed.values()))
    step = (shared + rest) / scale + sum(fixed.values())
    kept = " + ".join(f"{name} {seconds:.3g} s" for name, seconds in fixed.items() if seconds) or "0 s"
    lines.append(
        Line(
            "step, measured here",
            f"(forward, losses, backward {shared + rest:.3g} s) / {scale:g} + {kept}",
            f"{step:.3g} s",
        )
    )
    if target.count > 1:
        size = work.student.trained_bytes
        lines.append(
            Line(
                "between devices",
                f"{format_size(size)} of gradients a step: their link was not measured",
                "not counted",
            )
        )
    return step


def _extraction(work: Workload, target: Target, lines: list[Line]) -> dict[str, float]:
    found = {teacher.name: extraction_seconds(teacher, target, lines) for teacher in work.teachers}
    return {name: seconds for name, seconds in found.items() if seconds is not None}


def extraction_seconds(teacher: TeacherLoad, target: Target, lines: list[Line]) -> float | None:
    """Of what a teacher's features lack, in float32, as kdkit extracts; None if nothing was measured.

    Args:
        lines: gets the arithmetic.
    """
    label, seconds, text = f"extraction, {teacher.name}", None, f"{teacher.missing} samples"
    if not teacher.missing:
        lines.append(Line(label, f"{teacher.samples} samples", "in the store already"))
        return None
    if target.device is None and teacher.seconds is not None:
        seconds = teacher.missing * teacher.seconds / target.count
        text += f" x {teacher.seconds:.3g} s measured here / {target.count}"
    elif target.device is not None and teacher.flops is not None:
        peak = target.device.peak("no")
        seconds = teacher.missing * teacher.flops / (target.count * peak * MFU)
        speed = f"{peak / 1e12:,.4g} TFLOP/s float32 x {MFU:.0%}"
        text += f" x {format_flops(teacher.flops)} / ({target.count} x {speed})"
    lines.append(Line(label, text, "not measured" if seconds is None else format_time(seconds)))
    return seconds


def _disk(work: Workload, lines: list[Line]) -> dict[str, int]:
    disk = dict[str, int]()
    for teacher in work.teachers:
        disk[f"features, {teacher.name}"] = teacher.samples * teacher.row_bytes
        _say(lines, f"features, {teacher.name}", f"{teacher.samples} x {format_size(teacher.row_bytes)}", disk)
    if work.image_bytes:
        disk["images"] = work.samples * work.image_bytes
        _say(lines, "images", f"{work.samples} x {format_size(work.image_bytes)}", disk)
    if work.input_bytes:
        disk["decoded inputs"] = work.samples * work.input_bytes
        _say(lines, "decoded inputs", f"{work.samples} x {format_size(work.input_bytes)}", disk)
    disk["checkpoints"] = work.checkpoints * work.checkpoint_bytes
    _say(lines, "checkpoints", f"{work.checkpoints} x {format_size(work.checkpoint_bytes)}", disk)
    disk["version"] = work.version_bytes
    _say(lines, "version", "student, heads and losses", disk)
    total = sum(disk.values())
    lines.append(Line("disk", "all of the above", format_size(total)))
    return disk


def _limits(work: Workload, target: Target, step: float, memory: int, available: int, disk: int) -> tuple[Limit, ...]:
    limits = [Limit("memory of a device", memory, available, _memory_knob(work, target))]
    limits.append(Limit("disk", disk, work.disk_free, "features of fewer teachers, or live teachers,"))
    if work.decode_seconds:
        cores = work.decode_seconds * work.batch_size / step
        have = target.count * (PROCESSORS if target.device is not None else _processors())
        limits.append(Limit("processors that decode images", cores, have, "'inputs: {cache: uint8}' in registry.yaml"))
    if work.index_bytes:
        limits.append(
            Limit(
                "memory of the machine, for the sample index",
                work.index_bytes * work.samples,
                HOST_MEMORY if target.device is not None else _machine_memory(),
                "a project for each part of the samples",
            )
        )
    return tuple(sorted(limits, key=lambda limit: -limit.share))


def _memory_knob(work: Workload, target: Target) -> str:
    if work.micro_batch is None:
        return "'optimizer: {micro_batch: auto}' in registry.yaml"
    if not work.shard and target.count > 1:
        return "--shard"
    return "a smaller optimizer.batch_size, or more devices with --shard,"


def _processors() -> int:
    from kdkit.core.base.threads import usable_processors

    return usable_processors()


def _machine_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _say(lines: list[Line], name: str, arithmetic: str, sizes: dict[str, int]) -> None:
    lines.append(Line(name, arithmetic, format_size(sizes[name])))


def format_flops(count: float) -> str:
    """FLOPs for people.

    Example:
        >>> format_flops(81.03e9), format_flops(1.07e16)
        ('81 GFLOPs', '10.7 PFLOPs')
    """
    for unit in ("", "k", "M", "G", "T"):
        if count < 1000:
            return f"{count:.3g} {unit}FLOPs"
        count /= 1000
    return f"{count:,.3g} PFLOPs"


def format_time(seconds: float) -> str:
    """Seconds for people.

    Example:
        >>> format_time(12.3), format_time(4000), format_time(3e6)
        ('12 s', '1.1 h', '34.7 days')
    """
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:,.1f} h" if hours < 72 else f"{hours / 24:,.1f} days"
