# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""Damaged files are read or refused in a sentence; and the fuzzer that says so finds faults that are planted."""

import os
import signal

import pytest

from helpers import fuzzer
from helpers.mutations import KINDS


SEED = 2304


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return fuzzer.Cases(tmp_path_factory.mktemp("originals"), SEED)


@pytest.mark.parametrize("part", range(4))
def test_damaged_files_are_read_or_refused(cases, part):
    assert fuzzer.find_faults(cases, range(part * 110, part * 110 + 110)) == []


def test_a_case_is_the_same_file_every_time(cases, tmp_path):
    again = fuzzer.Cases(tmp_path, SEED)
    images = [case for case in range(44) if cases.kind(case) in ("png", "gif", "wav")]
    assert [cases.content(case) for case in images] == [again.content(case) for case in images]
    assert len({cases.content(case) for case in images}) == len(images)


def _raise(path):
    raise KeyError("moov")


def _loop(path):
    while True:
        pass


def _crash(path):
    os.kill(os.getpid(), signal.SIGKILL)


def _say_nothing(path):
    fuzzer.check_message(ValueError(""))


def _name_no_file(path):
    fuzzer.check_message(fuzzer.MediaError("it is broken"), path)


@pytest.mark.parametrize(
    "target, what",
    [
        (_raise, "KeyError: 'moov'"),
        (_loop, "took more than 0.5 seconds"),
        (_crash, "the process ended with -9"),
        (_say_nothing, "AssertionError: ValueError without a message"),
        (_name_no_file, "AssertionError: the message does not name the file: 'it is broken'"),
    ],
)
def test_planted_faults_are_found(cases, monkeypatch, target, what):
    """Only one kind of file meets the fault; the cases around it are read all the same."""
    monkeypatch.setitem(fuzzer.TARGETS, "gif", target)
    for kind in KINDS:
        if kind != "gif":
            monkeypatch.setitem(fuzzer.TARGETS, kind, lambda path: path.read_bytes())
    faults = fuzzer.find_faults(cases, range(2 * len(KINDS)), limit=0.5)
    planted = [case for case in range(2 * len(KINDS)) if cases.kind(case) == "gif"]
    assert [(fault.case, fault.kind) for fault in faults] == [(case, "gif") for case in planted]
    assert {fault.what for fault in faults} == {what}
