"""Devices, layouts, budgets and packing from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from scalecli.cli.app import app
from scalecli.export.schemas import document_schema

LARGE = (
    "memory",
    "--params",
    "70B",
    "--accelerator",
    "h100-80g",
    "--count",
    "512",
    "--batch",
    "1024",
    "--search",
)
SMALL = ("--layers", "4", "--width", "512", "--heads", "8")
H100 = ("--accelerator", "h100-80g")
H100S = (*H100, "--count", "4")


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def document(*words: str | Path) -> Any:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    Draft202012Validator(document_schema(str(words[0]))).validate(found)
    return found


def codes(found: Any) -> set[str]:
    return {warning["code"] for warning in found["warnings"]}


def lines(found: Any) -> dict[str, Any]:
    return {line["name"]: line for line in found["lines"]}


def test_the_search_for_70b_on_512_devices_takes_under_two_seconds() -> None:
    code = (
        "import sys\nfrom scalecli.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert not {'torch', 'scipy', 'pandas'} & set(sys.modules)\n"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code, *LARGE], capture_output=True, text=True, check=False)
    after = os.times()
    assert done.returncode == 0, done.stderr
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    assert seconds < 2


def test_memory_prints_where_the_time_goes_and_what_else_fits() -> None:
    result = run(*LARGE)
    assert result.exit_code == 0, result.stderr
    for title in ("Where a step's time goes", "On fewer devices", "Other layouts that fit", "headroom"):
        assert title in result.stdout


def test_devices_of_several_kinds_share_batch_and_states() -> None:
    found = document("memory", "--params", "7B", "--accelerator", "a100-80g:8,v100-32g:8", "--batch", "256")
    assert found["target"]["count"] == 16
    fast, slow = found["devices"]
    assert fast["sequences"] > slow["sequences"]
    assert fast["state_share"] > slow["state_share"]
    assert {"W-MIXED-DEVICES", "W-NO-BF16"} <= codes(found)
    printed = run(
        "memory", "--params", "7B", "--accelerator", "a100-80g:8,v100-32g:8", "--batch", "256"
    ).stdout
    assert "What each device does and holds" in printed


def test_a_search_holds_to_options_and_says_what_layers_do() -> None:
    words = (
        "memory",
        "--params",
        "7B",
        "--accelerator",
        "a100-40g",
        "--count",
        "4",
        "--batch",
        "64",
        "--search",
    )
    found = document(*words, "--tp", "2", "--micro-batch", "4", "--sequence-length", "4096")
    assert found["tensor_parallel"] == 2
    assert all(other["tensor_parallel"] == 2 for other in found["alternatives"])
    assert found["offload"] == "activations"
    printed = run(*words, "--tp", "2", "--micro-batch", "4", "--sequence-length", "4096").stdout
    assert f"offload activations (first {found['offload_layers']} layers)" in printed


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (("--params", "7B", "--heads", "7"), "goes with --layers and --width"),
        (("--params", "7B", "--accelerator", "a100-80g:8,v100-32g:8", "--tp", "2"), "not with tp"),
    ],
)
def test_no_wish_is_passed_over(wishes: tuple[str, ...], said: str) -> None:
    result = run("memory", *wishes)
    assert result.exit_code in (2, 40)
    assert said in result.stderr


def test_what_is_assumed_of_a_step_moves_its_time() -> None:
    words = (
        "memory",
        "--params",
        "7B",
        "--accelerator",
        "a100-80g",
        "--count",
        "8",
        "--tp",
        "8",
        "--batch",
        "8",
    )
    exposed, hidden = (document(*words, *more) for more in ((), ("--assume", "tensor=1")))
    assert hidden["step"]["seconds"] < exposed["step"]["seconds"]
    (said,) = exposed["step"]["communication"]
    assert (said["name"], said["link"]) == ("tensor-parallel", "node")
    slow = ("memory", "--params", "7B", "--accelerator", "a100-80g", "--count", "64", "--batch", "64")
    plain, bits = (
        document(*slow, *more)["step"]["communication"][0]["bytes"]
        for more in ((), ("--assume", "reduction=distributed-lion"))
    )
    assert bits < 0.6 * plain


def test_days_are_spent_to_the_hour() -> None:
    found = document("plan", "--params", "1B", "--days", "2", *H100)
    assert found["cost"]["days"]["value"] == pytest.approx(2, rel=1e-3)
    assert found["cost"]["goodput"] == 1
    assert {
        "checkpoint interval",
        "goodput",
        "MFU, published",
        "energy of a step",
        "least tokens of a step",
    } <= set(lines(found))


def test_a_spot_market_costs_what_it_interrupts() -> None:
    steady = document("plan", "--params", "1B", "--tokens", "20B", *H100)
    spot = document("plan", "--params", "1B", "--tokens", "20B", *H100, "--mtbf", "0.1")
    assert spot["cost"]["goodput"] < 0.95
    days = [each["cost"]["days"]["value"] for each in (steady, spot)]
    assert days[1] == pytest.approx(days[0] / spot["cost"]["goodput"])
    assert spot["lines"] != steady["lines"]


def test_a_measured_utilisation_and_goodput_are_taken_as_said() -> None:
    words = ("plan", "--params", "1B", "--tokens", "20B", *H100, "--price", "2", "--currency", "EUR")
    found = document(*words, "--mfu", "0.4", "--goodput", "0.5")["cost"]
    assert found["mfu"] == {"value": 0.4, "low": 0.4, "high": 0.4}
    assert found["amount"]["value"] == pytest.approx(2 * found["device_hours"]["value"])
    assert found["currency"] == "EUR"
    assert found["days"]["value"] == pytest.approx(document(*words, "--mfu", "0.2")["cost"]["days"]["value"])


def test_money_finds_a_size_and_inference_makes_it_smaller() -> None:
    words = ("plan", "--money", "2000", "--price", "2.5", *H100)
    printed = run(*words, "--inference-tokens", "200B").stdout
    assert "Other ways to spend it" in printed
    assert "USD" in printed
    plain, served = document(*words), document(*words, "--inference-tokens", "200B")
    assert plain["cost"]["amount"]["value"] == pytest.approx(2000, rel=0.01)
    assert served["target"]["params"] < plain["target"]["params"]
    assert served["cost"]["amount"]["value"] < 2000  # the rest pays for inference
    best = next(row for row in served["allocation"] if row["reason"] == "least loss")
    assert best["amount"] == pytest.approx(2000, rel=0.01)
    assert best["loss"] == min(row["loss"] for row in served["allocation"])
    assert "W-NO-LOSS-FIT" in codes(plain)


def test_memory_to_serve_in_decides_the_number_of_experts() -> None:
    words = ("plan", "--flops", "1e21", "--experts", "auto", "--serve-memory")
    roomy, tight = document(*words, "20GB"), document(*words, "4GB")
    assert roomy["target"]["shape"]["num_experts"] > 1
    assert tight["target"]["shape"]["num_experts"] == 1
    assert {"W-BATCH-STATISTICS", "W-DENSE-RULES"} <= codes(roomy)
    assert any("(qiu2025)" in warning["message"] for warning in roomy["warnings"])
    assert lines(roomy)["experts"]["source"] == "ludziejewski2025"


def test_a_wanted_loss_costs_least_with_fewer_parameters_for_more_inference() -> None:
    plain = document("plan", "--loss", "2.3")
    served = document("plan", "--loss", "2.3", "--inference-tokens", "2T")
    assert served["target"]["params"] < plain["target"]["params"]
    assert served["target"]["tokens"] > plain["target"]["tokens"]


def test_the_largest_model_that_devices_hold() -> None:
    found = document("plan", "--flops", "1e24", "--accelerator", "rtx4090")
    assert found["memory"]["fits"]
    assert found["target"]["params"] < 2e10  # and not the hundred billion that the FLOPs are worth


def test_replicas_apart_have_their_own_devices_and_pay_for_their_link() -> None:
    words = ("plan", "--params", "1B", "--tokens", "20B", *H100S, "--replicas", "2")
    slow = document(*words, "--algo", "diloco", "--replica-bandwidth", "1G")
    fast = document(*words, "--algo", "streaming-diloco", "--replica-bandwidth", "1G")
    assert slow["memory"]["data_parallel"] <= 2
    names = [each["name"] for each in slow["memory"]["step"]["communication"]]
    assert "replicas" in names
    assert fast["cost"]["days"]["value"] < slow["cost"]["days"]["value"]
    for averaging in ("data-parallel", "DiLoCo", "streaming DiLoCo"):
        assert lines(slow)[f"mean bandwidth, {averaging}"]["value"] > 0
        assert lines(slow)[f"peak bandwidth, {averaging}"]["value"] > 0
    mean = [lines(slow)[f"mean bandwidth, {name}"]["value"] for name in ("data-parallel", "DiLoCo")]
    assert mean[0] == pytest.approx(30 * mean[1])


def test_a_layer_of_experts_says_what_it_sends() -> None:
    words = (
        "plan",
        "--params",
        "1B",
        "--tokens",
        "20B",
        *H100,
        "--experts",
        "8",
        "--experts-per-token",
        "2",
    )
    found = document(*words)
    assert found["target"]["params"] > 2e9
    assert found["target"]["flops"] < 0.6 * 6 * found["target"]["params"] * 2e10
    narrow = document(*words, "--assume", "dispatch_width=256")
    sent = [lines(each)["sent to experts by a token"]["value"] for each in (found, narrow)]
    assert sent[1] == 256 / found["target"]["shape"]["width"] * sent[0]
    roomy = document(*words, "--capacity-factor", "1.5")
    assert lines(roomy)["sent to experts by a token"]["value"] == 1.5 * sent[0]
    assert roomy["cost"]["days"]["value"] > found["cost"]["days"]["value"]


def test_odd_dimensions_are_rounded_for_kernels() -> None:
    words = ("plan", *SMALL, "--tokens", "1B", "--accelerator", "a100-80g")
    assert "W-KERNEL-DIMENSIONS" in codes(document(*words, "--vocab", "50257"))
    assert "W-KERNEL-DIMENSIONS" not in codes(document(*words, "--vocab", "50304"))


def test_packing(tmp_path: Path) -> None:
    lengths = tmp_path / "lengths.csv"
    lengths.write_text("length\n" + "\n".join(str(50 + 37 * i % 900) for i in range(200)) + "\n")
    found = document("packing", lengths, "--sequence-length", "1024")
    assert found["schema"] == "scalecli/packing/1"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("memory", *SMALL, "--tp", "3"), 40, "8 attention heads cannot be split over 3"),
        (("memory", *SMALL, "--tp", "3", "--count", "64"), 40, "do not divide 64 devices"),
        (("memory", *SMALL, "--tp", "0"), 2, "'--tp'"),
        (("memory", *SMALL, "--dp", "8", "--batch", "4"), 40, "cannot feed 8 data-parallel ranks"),
        (("memory", *SMALL, "--pp", "8"), 40, "4 layers are fewer than 8 pipeline stages"),
        (("memory", *SMALL, "--cp", "3", "--sequence-length", "1000"), 40, "cannot be split over 3 context"),
        (
            ("memory", *SMALL, "--experts", "4", "--ep", "3", "--dp", "3"),
            40,
            "4 experts cannot be split over 3",
        ),
        (("memory", *SMALL, "--micro-batch", "0"), 40, "micro-batch of 0"),
        (("memory", *SMALL, "--search", "--count", "8"), 40, "know the device"),
        (("memory", *SMALL, "--accelerator", "h1000"), 41, "h100"),
        (("memory", *SMALL, "--accelerator", "a100-80g:4,v100-32g:0"), 40, "0 × v100-32g"),
        (
            ("memory", "--params", "7B", "--accelerator", "a10:4,l4:4", "--batch", "4"),
            40,
            "each of 8 devices",
        ),
        (
            ("memory", "--params", "70B", "--accelerator", "a10:4,l4:4", "--batch", "8"),
            42,
            "weights, gradients",
        ),
        (
            ("memory", "--params", "7B", "--accelerator", "l4", "--search", "--sequence-length", "524288"),
            42,
            "too much, most of it",
        ),
        (("memory", *SMALL, "--assume", "tensor=2"), 40, "an overlap of 2"),
        (("memory", *SMALL, "--assume", "tensr=0.2"), 40, "'tensr'"),
        (("memory", *SMALL, "--assume", "reduction=2-bit"), 40, "int8"),
        (("plan", "--params", "1B", "--days", "10"), 40, "depends on the devices"),
        (("plan", "--money", "100", *H100S), 40, "without a price"),
        (("plan", "--params", "1B", "--tokens", "1B", "--days", "4"), 40, "exactly one way"),
        (("plan", "--tokens", "1B"), 40, "no size"),
        (("plan", "--loss", "1.0"), 40, "no model can be trained for a loss of 1"),
        (("plan", "--flops", "1e18", "--inference-tokens", "100T"), 40, "100T tokens of inference"),
        (("plan", "--params", "1B", "--flops", "1e18", "--inference-tokens", "1T"), 40, "leave nothing"),
        (("plan", "--params", "1B", "--tokens", "1B", "--experts", "auto"), 40, "not for a size"),
        (("plan", "--params", "1B", "--tokens", "1B", "--serve-memory", "1GB"), 40, "to serve, more than"),
        (("plan", "--params", "1B", "--tokens", "1B", "--experts-per-token", "2"), 40, "2 of 1 experts"),
        (("plan", "--params", "1B", "--tokens", "1B", *H100S, "--mfu", "2"), 40, "MFU of 2"),
        (("plan", "--params", "1B", "--tokens", "1B", *H100S, "--goodput", "0"), 40, "goodput of 0"),
        (("plan", "--params", "1B", "--tokens", "1B", *H100S, "--mtbf", "0"), 40, "mean time of 0 s"),
        (
            ("plan", "--params", "1B", "--tokens", "1B", *H100S, "--algo", "diloco", "--replicas", "3"),
            40,
            "4 devices cannot be shared out among 3 replicas",
        ),
        (
            ("plan", "--params", "1B", "--tokens", "1B", "--accelerator", "l4:4,a10:4", "--algo", "diloco"),
            40,
            "devices of one kind",
        ),
    ],
)
def test_impossible_wishes_have_one_clear_message(words: tuple[str, ...], code: int, message: str) -> None:
    result = run(*words, "--json")
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    error = json.loads(result.stderr.strip().splitlines()[-1])["error"]
    assert error["code"] == code
    assert message in error["message"]


@pytest.mark.parametrize(
    "entry",
    [
        "memory_bytes = -8e9\npeak_flops = {bf16 = 1e13}",
        "memory_bytes = 0\npeak_flops = {bf16 = 1e13}",
        "memory_bytes = 8e9\npeak_flops = {bf16 = -1e13}",
        "memory_bytes = 8e9\npeak_flops = {bf16 = 1e13}\nlink_bandwidth = 0",
    ],
)
def test_impossible_devices_have_one_clear_message(entry: str, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(f'[mine]\nvendor = "me"\nsource = "hpl"\n{entry}\n', encoding="utf-8")
    result = run("memory", *SMALL, "--accelerator", "mine", "--accelerators", own, "--json")
    assert result.exit_code == 10
    assert "not a positive number" in json.loads(result.stderr.strip().splitlines()[-1])["error"]["message"]
