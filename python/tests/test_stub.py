"""The stub names what the extension has, and nothing else."""

import ast
from pathlib import Path

import pytest

import relugrad as rg
from relugrad import _relugrad

STUB = ast.parse((Path(rg.__file__).parent / "_relugrad.pyi").read_text(encoding="utf-8"))
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}


def public(names):
    return {name for name in names if not name.startswith("_") or name.startswith("_repr_")}


def test_every_name_is_in_the_stub():
    assert public(vars(_relugrad)) == set(CLASSES) | set(FUNCTIONS)


@pytest.mark.parametrize("name", CLASSES)
def test_every_method_is_in_the_stub(name):
    stubbed = {node.name for node in CLASSES[name].body if isinstance(node, ast.FunctionDef)}
    assert public(vars(getattr(_relugrad, name))) == public(stubbed)


def parameters(node):
    arguments = node.args
    names = [one.arg for one in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]]
    return [name for name in names if name not in ("self", "cls")]


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_parameters_have_the_same_names(name):
    found = getattr(_relugrad, name)
    nodes = [(found, FUNCTIONS[name])] if name in FUNCTIONS else []
    for node in CLASSES[name].body if name in CLASSES else ():
        plain = isinstance(node, ast.FunctionDef) and not node.name.startswith("__")
        if plain and not any(isinstance(one, ast.Attribute) for one in node.decorator_list):
            method = getattr(found, node.name)
            if callable(method):
                nodes.append((method, node))
    for method, node in nodes:
        signature = (method.__text_signature__ or "()").strip("()").replace("$", "")
        names = [part.split("=")[0].strip() for part in signature.split(", ")]
        names = [one for one in names if one and one not in ("self", "slf", "/", "*")]
        assert names == parameters(node), f"{name}.{node.name}"


def test_the_package_has_what_it_says():
    for name in rg.__all__:
        assert getattr(rg, name) is not None
