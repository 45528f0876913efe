"""What ``--plan-for`` accepts, and the table of devices."""

from __future__ import annotations

import pytest

from kdkit.core.distill.forecast.devices import DEVICES, parse_target
from tests.errors import raises_error


def test_a_count_and_a_device() -> None:
    target = parse_target("8xh100")
    assert (target.count, target.device, target.title) == (8, DEVICES["h100"], "8 x H100")
    own = parse_target(" 4 ")
    assert (own.count, own.device, own.title) == (4, None, "4 x this machine")
    assert parse_target("2xRTX4090").device is DEVICES["rtx4090"]


@pytest.mark.parametrize("text", ["", "0", "0xH100", "-1", "x", "8x", "8 GPUs", "1.5xH100", "1" * 30])
def test_anything_else_says_the_form(text: str) -> None:
    with raises_error("KD-DIST-531") as caught:
        parse_target(text)
    assert "8xH100" in caught.value.fix


def test_an_unknown_device_names_those_that_are_known() -> None:
    with raises_error("KD-DIST-532") as caught:
        parse_target("8xH10")
    assert "H100" in caught.value.why


def test_every_device_names_its_source_and_plausible_figures() -> None:
    for name, device in DEVICES.items():
        assert name == device.name.lower()
        assert "read 20" in device.source
        assert device.bf16 > device.float32 > 1e13
        assert 2e10 < device.memory < 3e11
        assert 1e11 < device.bandwidth < 1e13
        assert device.link <= device.bandwidth
