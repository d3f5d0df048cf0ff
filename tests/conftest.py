"""Options of the longer proofs; what runs by default is small enough for every run."""

from __future__ import annotations


def pytest_addoption(parser):
    parser.addoption(
        "--kills", type=int, default=20, help="How often the service is killed (the full proof: 1000)."
    )
    parser.addoption("--cut-answers", type=int, default=120, help="Meter answers in the power-cut workload.")
