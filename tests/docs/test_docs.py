"""The documents say what the code does: their code blocks run, their lists are complete."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from steerable.app.cli import COMMANDS
from steerable.core.errors import CODES

ROOT = Path(__file__).parents[2]


def blocks(path, language):
    text = (ROOT / path).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.slow
def test_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = blocks("README.md", "python")
    assert found
    for block in found:
        exec(compile(block, "README.md", "exec"), {})  # the block is ours
    assert "torch.Size([4, 1, 8, 8])" in capsys.readouterr().out


def test_commands_of_the_documents_parse():
    from steerable.app.cli import app

    seen = 0
    for path in ("README.md", "docs/cli.md"):
        for block in blocks(path, "bash"):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["steerable"]:
                    app.parse_args(words[1:], exit_on_error=False, print_error=False)
                    seen += 1
                elif words[:1] == ["make"]:
                    makefile = (ROOT / "Makefile").read_text()
                    assert re.search(rf"^{words[1]}:", makefile, flags=re.MULTILINE)
                    seen += 1
    assert seen >= 6


def test_parts_page_is_up_to_date():
    place = importlib.util.spec_from_file_location("make_parts", ROOT / "docs" / "make_parts.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    written = (ROOT / "docs" / "parts.md").read_text(encoding="utf-8")
    assert written == module.page(), "run make docs"


def test_every_error_code_and_command_is_documented():
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for code, fault in CODES.items():
        short = code.removeprefix("E-CKPT")
        line = next((row for row in text.splitlines() if row.startswith(f"| {fault.exit} |")), "")
        assert code in line or short in line, code
    for name in COMMANDS:
        assert re.search(rf"\b{name}\b", text), name


def test_every_error_code_is_raised_somewhere():
    raised = set()
    catalogued = ROOT / "src/steerable/core/errors.py"
    for path in set((ROOT / "src").rglob("*.py")) - {catalogued}:
        raised |= set(re.findall(r'"(E-[A-Z-]+)"', path.read_text(encoding="utf-8")))
    catalogue = (ROOT / "src/steerable/core/errors.py").read_text(encoding="utf-8")
    assert set(re.findall(r'"(E-[A-Z-]+)"', catalogue)) == set(CODES) <= raised


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", "docs/cli.md"])
def test_links_lead_somewhere(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / path).parent.joinpath(target).exists(), target
