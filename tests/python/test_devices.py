"""`pyllamacpp devices` where there is no driver; tests/system has those that need one."""

import json

import pytest


@pytest.fixture(autouse=True)
def _no_driver(monkeypatch) -> None:
    for name in ("VK_ICD_FILENAMES", "VK_DRIVER_FILES"):
        monkeypatch.setenv(name, "/nonexistent")


def test_no_driver_is_no_gpu(run, monkeypatch) -> None:
    assert run("devices").stdout == "no GPU: no Vulkan driver found one\n"
    monkeypatch.setenv("PYLLAMACPP_DEVICE", "cpu")
    assert json.loads(run("devices", "--json").stdout) == []


@pytest.mark.parametrize("name", ["0", "GeForce", "-1", "99999999999999999999999"])
def test_a_device_that_is_not_there(name, run, monkeypatch) -> None:
    monkeypatch.setenv("PYLLAMACPP_DEVICE", name)
    result = run("devices")
    assert result.returncode == 1
    assert result.stderr == (
        f"pyllamacpp: error: PYLLAMACPP_DEVICE is '{name}', which is no device here; "
        "there are: cpu\n"
    )
