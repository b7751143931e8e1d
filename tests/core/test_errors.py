"""The catalogue of faults and the exception that carries them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import steerable
from steerable.core.errors import CODES, UserError


def test_a_fault_says_where_what_and_what_to_do():
    fault = UserError("E-LABEL", where="labels", got="11", takes="0 to 9", do="choose another")
    assert str(fault) == "labels · 11 · 0 to 9 · choose another"
    assert fault.exit_code == 2 and isinstance(fault, ValueError)
    record = fault.record()
    assert record["error"] == "E-LABEL" and record["kept"] == "" and record["got"] == "11"


def test_an_unknown_code_is_our_own_mistake():
    with pytest.raises(AssertionError, match="not in the catalogue"):
        UserError("E-NONE", where="x", got="y")


def test_every_code_that_the_package_raises_is_in_the_catalogue():
    raised = set()
    for path in Path(steerable.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UserError":
                assert isinstance(node.args[0], ast.Constant), f"{path}:{node.lineno}"
                raised.add(node.args[0].value)
    assert raised <= set(CODES) and raised


def test_exit_codes_leave_room_for_python_and_the_shell():
    for code, fault in CODES.items():
        assert code.startswith("E-") and 2 <= fault.exit <= 99 and 200 <= fault.http < 600
