"""No file that is read may run code, and files are written in one durable place only."""

from __future__ import annotations

import ast

import pytest

from .source import dotted, imports, trees

MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "_pickle", "accelerate"}
CALLS = {
    "torch.load",
    "torch.save",
    "torch.jit.load",
    "torch.export.load",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "os.system",
    "os.popen",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.load_all",
    "yaml.unsafe_load_all",
    "yaml.full_load_all",
}
COLLECTIVES = {"all_gather_object", "broadcast_object_list", "gather_object", "scatter_object_list"}
WRITERS = {
    "write_text",
    "write_bytes",
    "save_file",
    "np.save",
    "np.savez",
    "np.savez_compressed",
    "np.savetxt",
    "numpy.save",
    "numpy.savez",
    "numpy.savez_compressed",
    "tofile",
    "savefig",
}
# The only file that may unpickle, tensors alone: it checks the hash of the one file that it reads.
PINNED = "extractors/efficientnet_lite0.py"
DURABLE = "jobs/durable.py"  # the only file that may open a file for writing


def _calls(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _keyword(call, name):
    return next((k.value for k in call.keywords if k.arg == name), None)


def unsafe(name, tree):
    """What a file does that could run code from data: (line, what)."""
    for line, module, imported, _ in imports(name, tree):
        if module.split(".")[0] in MODULES:
            yield line, f"imports {module}"
        if f"{module}.{imported}" in CALLS or module.startswith("torch.hub"):
            yield line, f"imports {module}.{imported}"
    for call in _calls(tree):
        called = dotted(call.func)
        last = called.split(".")[-1]
        weights_only = _keyword(call, "weights_only")
        tensors = isinstance(weights_only, ast.Constant) and weights_only.value is True
        if called == "torch.load" and name == PINNED and tensors:
            continue
        if called in CALLS or last in COLLECTIVES or called.startswith("torch.hub."):
            yield call.lineno, called
        if called in {"eval", "exec", "builtins.eval", "builtins.exec"}:
            yield call.lineno, called
        if called in {"np.load", "numpy.load"}:
            allow = _keyword(call, "allow_pickle")
            if not (isinstance(allow, ast.Constant) and allow.value is False):
                yield call.lineno, f"{called} without allow_pickle=False"
        if called == "yaml.load":
            loader = _keyword(call, "Loader") or (call.args[1] if len(call.args) > 1 else None)
            if "Safe" not in dotted(loader).split(".")[-1]:
                yield call.lineno, "yaml.load that is not safe"
        shell = _keyword(call, "shell")
        if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
            yield call.lineno, "a shell"
        if _keyword(call, "trust_remote_code") is not None:
            yield call.lineno, "trust_remote_code"


def _opens_for_writing(call, called):
    """Whether an `open` of any kind names a mode that writes, or one that cannot be read here."""
    function = called in {"open", "io.open", "gzip.open", "bz2.open", "lzma.open", "tarfile.open"}
    mode = _keyword(call, "mode")
    if mode is None and len(call.args) > function:
        mode = call.args[function]
    if not isinstance(mode, ast.Constant):  # `archive.open(member)` names no mode
        return function and mode is not None
    text = str(mode.value)
    return set(text) <= set("rwaxbtU+|:gz") and bool(set(text) & set("wax+"))


def _is_memory(node, tree):
    """Whether a name stands for bytes in memory: it is made by io.BytesIO in the same file."""
    if isinstance(node, ast.Call):
        return dotted(node.func).endswith("BytesIO")
    made = {
        target.id
        for a in ast.walk(tree)
        if isinstance(a, ast.Assign | ast.AnnAssign) and isinstance(a.value, ast.Call)
        if dotted(a.value.func).endswith("BytesIO")
        for target in (a.targets if isinstance(a, ast.Assign) else [a.target])
        if isinstance(target, ast.Name)
    }
    return isinstance(node, ast.Name) and node.id in made


def _our_modules(tree):
    """Names under which a file knows modules of the package."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        if node.level or (node.module or "").startswith("steerable")
        for alias in node.names
    }


def writes(tree):
    """Where a file opens another one for writing: (line, what)."""
    for call in _calls(tree):
        called = dotted(call.func)
        last = called.split(".")[-1]
        if called in WRITERS or last in WRITERS:
            target = call.args[0] if call.args else None
            if not _is_memory(target, tree):
                yield call.lineno, last
        elif last == "open" and called not in {"Image.open", "os.open", "PIL.Image.open"}:
            if _opens_for_writing(call, called):
                yield call.lineno, f"{called} for writing"
        elif called == "os.open":
            flags = {dotted(n) for n in ast.walk(call)}
            if flags & {"os.O_WRONLY", "os.O_RDWR", "os.O_CREAT", "os.O_TRUNC", "os.O_APPEND"}:
                yield call.lineno, "os.open for writing"
        elif last == "save" and isinstance(call.func, ast.Attribute):
            target = call.args[0] if call.args else _keyword(call, "fp")
            if called.split(".")[0] in _our_modules(tree):
                continue  # a function of ours, looked at in its own file
            memory = called == "safetensors.torch.save" or _is_memory(target, tree)
            if target is not None and not memory:
                yield call.lineno, f"{called}(...)"


@pytest.mark.parametrize("name", trees())
def test_no_code_from_data(name):
    found = list(unsafe(name, trees()[name]))
    assert not found, f"{name}: {found}"


@pytest.mark.parametrize("name", [n for n in trees() if n != DURABLE])
def test_files_are_written_by_the_durable_module_only(name):
    found = list(writes(trees()[name]))
    assert not found, f"{name}: {found}"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from dill import loads",
        "from torch import load",
        "torch.load(p)",
        "torch.load(p, weights_only=True)",
        "np.load(p)",
        "np.load(p, allow_pickle=True)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval('1')",
        "exec(code)",
        "subprocess.run(c, shell=True)",
        "os.system('ls')",
        "torch.hub.load('a', 'b')",
        "dist.all_gather_object(a, b)",
    ],
)
def test_the_ban_sees(line):
    assert list(unsafe("jobs/x.py", ast.parse(line)))


def test_the_one_exception_is_for_tensors_alone():
    for line in ("torch.load(p)", "torch.load(p, weights_only=False)", "torch.load(p, None, safe)"):
        assert list(unsafe(PINNED, ast.parse(line)))
    assert not list(unsafe(PINNED, ast.parse("torch.load(p, weights_only=True)")))


@pytest.mark.parametrize(
    "line",
    [
        "np.load(p, allow_pickle=False)",
        "yaml.safe_load(text)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "model.eval()",
        "model.to(device).eval()",
        "re.compile('x')",
        "subprocess.run(c)",
    ],
)
def test_the_ban_leaves_alone(line):
    assert not list(unsafe("jobs/x.py", ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        "open(p, 'w')",
        "open(p, mode='ab')",
        "open(p, 'x')",
        "open(p, 'r+b')",
        "p.open('w')",
        "open(p, mode)",
        "gzip.open(p, 'wb')",
        "p.write_text('a')",
        "(a / b).write_bytes(x)",
        "save_file(t, p)",
        "np.save(p, a)",
        "image.save(path)",
        "image.save(folder / 'a.png')",
        "os.open(p, os.O_CREAT | os.O_WRONLY)",
    ],
)
def test_the_watch_on_writing_sees(line):
    assert list(writes(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        "open(p)",
        "open(p, 'rb')",
        "p.open('rb')",
        "Image.open(p)",
        "b = io.BytesIO()\nimage.save(b, 'PNG')",
        "zipfile.ZipFile(p).open(name)",
        "archive.open('images.npy')",
        "gzip.open(p)",
        "os.open(p, os.O_RDONLY)",
        "safetensors.torch.save(tensors)",
    ],
)
def test_the_watch_on_writing_leaves_alone(line):
    assert not list(writes(ast.parse(line)))
