"""Heat and throttling as Linux and macOS tell of it."""

from __future__ import annotations

import ctypes
import time

import pytest

from edgeinfer.device import thermal
from edgeinfer.device.thermal import ThermalState
from edgeinfer.device.thermal_linux import Clock, LinuxSensors, clocks
from edgeinfer.device.thermal_macos import MacSensors
from support.trees import lay_out, write

CPU = "sys/devices/system/cpu"
ZONE = "sys/class/thermal/thermal_zone"
FIRMWARE = {
    "a Pi 4": "sys/devices/platform/soc/soc:firmware/get_throttled",
    "a Pi 5": "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled",
}


def zones(*kinds: tuple[str, int]) -> dict[str, str]:
    files = {}
    for number, (kind, temperature) in enumerate(kinds):
        files |= {f"{ZONE}{number}/type": f"{kind}\n", f"{ZONE}{number}/temp": f"{temperature}\n"}
    return files


def policy(limit: int, top: int, cpus: str = "0 1 2 3") -> dict[str, str]:
    folder = f"{CPU}/cpufreq/policy{cpus[0]}"
    return {
        f"{folder}/related_cpus": f"{cpus}\n",
        f"{folder}/cpuinfo_max_freq": f"{top}\n",
        f"{folder}/scaling_max_freq": f"{limit}\n",
        f"{folder}/scaling_cur_freq": "600000\n",
    }


@pytest.fixture
def state_of(tmp_path):
    return lambda files: LinuxSensors(write(tmp_path, files)).read()


def test_a_raspberry_pi_4_on_a_weak_supply(tmp_path):
    state = LinuxSensors(lay_out(tmp_path, "rpi4")).read()

    assert state == ThermalState(
        celsius=82.761,
        throttled=True,
        reasons=("under-voltage", "throttled by the firmware"),
    )


def test_a_raspberry_pi_5_whose_fan_turns(tmp_path):
    root = lay_out(tmp_path, "rpi5")

    assert LinuxSensors(root).read() == ThermalState(celsius=56.8)
    assert clocks(root) == (
        Clock(cpus="0,1,2,3", now=2_400_000_000, limit=2_400_000_000, maximum=2_400_000_000),
    )


def test_a_machine_that_tells_nothing(state_of):
    assert state_of({}) == ThermalState()


def test_a_reading_of_a_phone_with_many_sensors_takes_less_than_a_millisecond(tmp_path):
    many = zones(*((f"cpu-{n // 8}-{n % 8}" if n < 16 else f"other{n}", 45000) for n in range(60)))
    for number in range(20):
        device = f"sys/class/thermal/cooling_device{number}"
        many |= {f"{device}/type": f"thermal-cpufreq-{number}\n", f"{device}/cur_state": "0\n"}
    many |= policy(1700000, 1700000) | policy(2000000, 2000000, "4 5")
    sensors = LinuxSensors(write(tmp_path, many))

    times = []
    for _ in range(50):
        start = time.thread_time()
        sensors.read()
        times.append(time.thread_time() - start)

    assert min(times) < 1e-3


@pytest.mark.parametrize("path", FIRMWARE.values(), ids=FIRMWARE)
@pytest.mark.parametrize(
    ("bits", "now", "past"),
    [
        ("0", (), ()),
        ("50005", ("under-voltage", "throttled by the firmware"), ()),
        ("50000", (), ("under-voltage", "throttled by the firmware")),
        ("80008", ("soft temperature limit",), ()),
        ("e0002", ("clock capped by the firmware",),
         ("throttled by the firmware", "soft temperature limit")),
    ],
)  # fmt: skip
def test_a_raspberry_pi_says_what_its_firmware_does(state_of, path, bits, now, past):
    state = state_of({path: f"{bits}\n", **zones(("cpu-thermal", 51121))})

    assert state == ThermalState(celsius=51.121, throttled=bool(now), reasons=now, past=past)


def test_a_raspberry_pi_without_the_file_is_asked_through_its_mailbox(state_of, monkeypatch):
    def ioctl(device, request, message, mutate):
        assert request == 0xC0086400
        assert list(message) == [28, 0, 0x30046, 4, 0, 0, 0]
        message[1], message[4], message[5] = 0x80000000, 0x80000004, 0x50005

    monkeypatch.setattr("fcntl.ioctl", ioctl)

    state = state_of({"dev/vcio": ""})

    assert state.reasons == ("under-voltage", "throttled by the firmware")


def test_a_mailbox_that_does_not_answer_says_nothing(state_of):
    assert state_of({"dev/vcio": ""}) == ThermalState()  # a plain file: ENOTTY


def test_the_kernel_of_kernel_org_tells_of_under_voltage(state_of):
    chip = "sys/class/hwmon/hwmon1"

    assert state_of({f"{chip}/name": "rpi_volt\n", f"{chip}/in0_lcrit_alarm": "1\n"}).reasons == (
        "under-voltage",
    )


@pytest.mark.parametrize(
    ("kinds", "celsius"),
    [
        # Rockchip RK3588.
        ((("soc-thermal", 44000), ("bigcore0-thermal", 46000), ("gpu-thermal", 90000)), 46.0),
        # An Intel laptop: ACPI's zone is coarse, others are of the board.
        ((("acpitz", 95000), ("INT3400 Thermal", 20000), ("x86_pkg_temp", 62000)), 62.0),
        ((("acpitz", 48000),), 48.0),
        # A Pixel: by the kind of core; the graphics and the battery are not the processor.
        ((("BIG", 55000), ("MID", 51000), ("LITTLE", 49000), ("G3D", 80000)), 55.0),
        # A Snapdragon phone: one sensor is off.
        ((("cpu-0-0-0", 47100), ("cpu-1-7", -273000), ("battery", 99000)), 47.1),
        ((("cpu-thermal", 0),), None),
    ],
)  # fmt: skip
def test_the_hottest_sensor_of_the_processor_counts(state_of, kinds, celsius):
    assert state_of(zones(*kinds)) == ThermalState(celsius=celsius)


def test_a_ryzen_is_read_from_hwmon(state_of):
    files = {}
    for number, (name, value) in enumerate([("nvme", 70000), ("k10temp", 61500)]):
        chip = f"sys/class/hwmon/hwmon{number}"
        files |= {f"{chip}/name": f"{name}\n", f"{chip}/temp1_input": f"{value}\n"}

    assert state_of(files).celsius == 61.5


@pytest.mark.parametrize(
    ("kind", "level", "throttled"),
    [
        ("cpufreq-cpu0", 2, True),
        ("thermal-cpufreq-0", 1, True),
        ("thermal-cpufreq-0", 0, False),
        ("Processor", 3, True),
        ("intel_powerclamp", -1, False),  # idle
        ("pwm-fan", 4, False),
    ],
)
def test_cooling_by_lower_clocks_is_throttling(state_of, kind, level, throttled):
    device = "sys/class/thermal/cooling_device0"

    state = state_of({f"{device}/type": f"{kind}\n", f"{device}/cur_state": f"{level}\n"})

    assert state.throttled == throttled
    assert state.reasons == ((f"cooled by {kind}",) if throttled else ())


def test_a_clock_limit_below_the_maximum_is_told(state_of):
    assert state_of(policy(1500000, 2400000)).reasons == ("clock capped at 1.50 of 2.40 GHz",)
    assert not state_of(policy(2400000, 2400000)).throttled


def test_an_intel_processor_counts_its_throttling(tmp_path):
    counter = f"{CPU}/cpu0/thermal_throttle/package_throttle_count"
    package = {f"{CPU}/cpu{n}/topology/physical_package_id": "0\n" for n in range(2)}
    also = {counter.replace("cpu0", "cpu1"): "7\n"}  # the same package again
    sensors = LinuxSensors(write(tmp_path, {counter: "7\n", **also, **package}))

    assert sensors.read() == ThermalState(past=("the processor throttled itself 7 times",))
    for path in (counter, *also):
        write(tmp_path, {path: "9\n"})
    assert sensors.read().reasons == ("the processor throttled itself",)
    assert sensors.read() == ThermalState(past=("the processor throttled itself 9 times",))


def test_the_clocks_of_a_phone(tmp_path):
    files = policy(1700000, 1700000, "0 1 2 3") | policy(2000000, 2850000, "4 5")

    assert clocks(write(tmp_path, files)) == (
        Clock(cpus="0,1,2,3", now=600_000_000, limit=1_700_000_000, maximum=1_700_000_000),
        Clock(cpus="4,5", now=600_000_000, limit=2_000_000_000, maximum=2_850_000_000),
    )


class Notifications:
    """notifyd's C interface with one known state."""

    def __init__(self, level: int | None) -> None:
        self.level = level

    def notify_register_check(self, name: bytes, token: object) -> int:
        assert name == b"com.apple.system.thermalpressurelevel"
        return 0 if self.level is not None else 1  # NOTIFY_STATUS_INVALID_NAME

    def notify_get_state(self, token: ctypes.c_int, level: object) -> int:
        level._obj.value = self.level
        return 0


@pytest.mark.parametrize(
    ("level", "reasons"),
    [
        (0, ()),
        (1, ("thermal pressure is moderate",)),
        (2, ("thermal pressure is heavy",)),
        (None, ()),
    ],
)
def test_a_mac_tells_its_thermal_pressure(level, reasons):
    state = MacSensors(Notifications(level)).read()

    assert state == ThermalState(throttled=bool(reasons), reasons=reasons)


def test_another_root_has_sensors_of_its_own(tmp_path):
    write(tmp_path, zones(("cpu-thermal", 33000)))

    assert thermal.read(tmp_path).celsius == 33.0
