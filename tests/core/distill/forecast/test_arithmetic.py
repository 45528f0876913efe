"""A forecast, recomputed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdkit.core.distill.forecast.arithmetic import forecast
from kdkit.core.distill.forecast.devices import DEVICES, MFU, USABLE, Target
from kdkit.core.distill.forecast.workload import Measured, StudentLoad, TeacherLoad, Workload

STUDENT = StudentLoad(
    parameters=200_000_000,
    trained=150_000_000,
    parameter_bytes=800_000_000,
    trained_bytes=600_000_000,
    flops=240e9,
    loss_flops=1e12,
    activations=50_000_000,
    output_bytes=10_000,
    held=7,
)
TEACHER = TeacherLoad("radio", row_bytes=2048, samples=1_000_000, missing=400_000, flops=60e9, seconds=0.01)
WORK = Workload(
    samples=1_000_000,
    steps=5000,
    batch_size=4096,
    student=STUDENT,
    teachers=(TEACHER,),
    precision="bf16",
    averaged=True,
    version_bytes=900_000_000,
    checkpoint_bytes=2_800_000_000,
    measured=Measured("cpu", 2.0, {"forward": 0.6, "backward": 1.0, "data": 0.1, "optimizer": 0.3}, 10**10),
    disk_free=10**11,
)
H100 = DEVICES["h100"]


def test_memory_of_every_device() -> None:
    found = forecast(WORK, Target(8, H100))
    assert found.memory == {
        "parameters": 800_000_000,
        "gradients": 600_000_000,
        "optimizer state": 1_200_000_000,
        "moving average": 800_000_000,
        "live teachers and frozen directions": 7,
        "activations": 512 * 50_000_000,
        "outputs and targets": 4096 * 10_000,
    }
    assert found.memory_available == int(USABLE * 80e9)


def test_sharding_divides_weights_and_states() -> None:
    whole, parts = forecast(WORK, Target(8, H100)), forecast(replace(WORK, shard=True), Target(8, H100))
    for name in ("parameters", "gradients", "optimizer state", "moving average"):
        assert parts.memory[name] == whole.memory[name] // 8
    assert parts.memory["activations"] == whole.memory["activations"]


def test_a_micro_batch_bounds_activations_and_costs_a_forward_pass() -> None:
    whole, parts = forecast(WORK, Target(8, H100)), forecast(replace(WORK, micro_batch=64), Target(8, H100))
    assert parts.memory["activations"] == 64 * 50_000_000
    assert parts.step_seconds > whole.step_seconds
    filled = forecast(replace(WORK, micro_batch="auto", batch_size=65536), Target(8, H100))
    assert sum(filled.memory.values()) < filled.memory_available
    assert filled.memory["activations"] > 64 * 50_000_000


@pytest.mark.parametrize("shard", [False, True])
def test_seconds_of_a_step_on_devices_of_the_table(shard: bool) -> None:
    found = forecast(replace(WORK, shard=shard), Target(8, H100))
    compute = (4096 * 240e9 + 1e12) / (8 * 989.4e12 * MFU)
    optimizer = 150e6 * 28 / (8 if shard else 1) / 3350e9
    between = (3 * 800e6 if shard else 2 * 600e6) * 7 / 8 / 450e9
    assert found.step_seconds == pytest.approx(compute + optimizer + between)
    assert found.training_seconds == pytest.approx(5000 * found.step_seconds)
    assert found.extraction_seconds["radio"] == pytest.approx(400_000 * 60e9 / (8 * 66.9e12 * MFU))
    total = found.training_seconds + found.extraction_seconds["radio"]
    assert found.device_hours == pytest.approx(8 * total / 3600)


def test_devices_of_several_machines_use_the_network() -> None:
    near, far = forecast(WORK, Target(8, H100)), forecast(WORK, Target(16, H100))
    waiting = [line.value for one in (near, far) for line in one.lines if line.label == "between devices"]
    assert waiting == [f"{2 * 600e6 * 7 / 8 / 450e9:.3g} s", f"{2 * 600e6 * 15 / 16 / 50e9:.3g} s"]


def test_seconds_on_more_of_this_machine_follow_the_measurement() -> None:
    one, four = forecast(WORK, Target(1)), forecast(WORK, Target(4))
    assert one.step_seconds == pytest.approx(2.0), "one is what was measured"
    assert four.step_seconds == pytest.approx(1.6 / 4 + 0.1 + 0.3)
    sharded = forecast(replace(WORK, shard=True), Target(4))
    assert sharded.step_seconds == pytest.approx(1.9 / 4 + 0.1)
    assert four.extraction_seconds["radio"] == pytest.approx(400_000 * 0.01 / 4)


def test_disk_and_what_breaks_first() -> None:
    found = forecast(WORK, Target(1))
    assert found.disk == {
        "features, radio": 2_048_000_000,
        "checkpoints": 8_400_000_000,
        "version": 900_000_000,
    }
    assert found.limits[0].name == "memory of a device"
    assert "breaks first: 20.8 times" in found.breaks_first
    assert "micro_batch: auto" in found.breaks_first
    roomy = replace(WORK, batch_size=32, micro_batch=8)
    assert forecast(roomy, Target(1)).breaks_first.startswith("everything fits; tightest is memory of a device, 38 %")
    small = replace(roomy, disk_free=10**10)
    assert "disk breaks first: 1.1 times" in forecast(small, Target(1)).breaks_first


def test_images_that_no_processor_could_decode_in_time_are_a_limit() -> None:
    work = replace(WORK, decode_seconds=10.0, micro_batch=64)
    assert "processors that decode images breaks first" in forecast(work, Target(8, H100)).breaks_first


def test_every_figure_has_its_line() -> None:
    found = forecast(WORK, Target(8, H100))
    labels = [line.label for line in found.lines]
    for label in (*found.memory, *found.disk, "FLOPs of a step", "computation", "optimizer", "between devices"):
        assert label in labels
    (line,) = (line for line in found.lines if line.label == "computation")
    assert line.arithmetic == "984 TFLOPs / (8 x 989.4 TFLOP/s bf16 x 35% assumed utilization)"
    assert line.value == "0.355 s"


def test_a_teacher_that_nobody_measured_is_said() -> None:
    unknown = replace(TEACHER, name="api", flops=None)
    found = forecast(replace(WORK, teachers=(unknown, replace(TEACHER, missing=0))), Target(8, H100))
    assert found.extraction_seconds == {}
    values = {line.label: line.value for line in found.lines}
    assert values["extraction, api"] == "not measured"
    assert values["extraction, radio"] == "in the store already"
