"""The contract of the kernels is written once: every backend, and the definition, take the arguments that it names."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from w2v_core import contract, reference
from w2v_core.kernels import BACKENDS

ROOT = Path(contract.__file__).parents[1]


def functions_of(path: Path, owner: str | None = None) -> dict[str, ast.FunctionDef]:
    """The functions of a file, or of one of its classes. The file is parsed, not imported: CuPy is not installed everywhere."""
    body = ast.parse(path.read_text()).body
    if owner:
        body = next(node.body for node in body if isinstance(node, ast.ClassDef) and node.name == owner)
    found = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    # `to_device, to_host = numpy_kernels.to_device, numpy_kernels.to_host` and `from … import merge_rows`.
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("w2v_core.kernels."):
            source = ROOT / f"{node.module.replace('.', '/')}.py"
            found |= {alias.name: functions_of(source)[alias.name] for alias in node.names if alias.name in CONTRACT}
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            for value in node.value.elts:
                if isinstance(value, ast.Attribute) and ast.unparse(value.value) == "numpy_kernels":
                    found[value.attr] = functions_of(ROOT / "w2v_core/kernels/numpy_kernels.py")[value.attr]
    return found


def signature_of(function: ast.FunctionDef) -> tuple[list[str], str]:
    """(names and types of the arguments without `self`, return type)."""
    arguments = [argument for argument in function.args.args if argument.arg != "self"]
    assert not function.args.defaults, f"{function.name}: what the contract names has no default"
    return [ast.unparse(argument) for argument in arguments], ast.unparse(function.returns) if function.returns else ""


CONTRACT: dict[str, ast.FunctionDef] = {}
CONTRACT |= {
    name: function for name, function in functions_of(Path(contract.__file__), "Kernels").items() if not function.decorator_list
}


def test_training_takes_five_arguments() -> None:
    assert [text.partition(":")[0] for text in signature_of(CONTRACT["train_slice"])[0]] == [
        "w_in_VD", "w_out_VD", "targets", "noise", "update",
    ]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_has_the_signatures_of_the_contract(backend: str) -> None:
    path = ROOT / f"{BACKENDS[backend].replace('.', '/')}.py"
    functions = functions_of(path)
    assert CONTRACT.keys() == {"train_slice", "train_lanes", "merge_rows", "fill_initial", "to_device", "to_host"}
    assert f'\nname = "{backend}"\n' in path.read_text()
    for name, expected in CONTRACT.items():
        assert name in functions, f"{path.name} has no {name}"
        assert signature_of(functions[name]) == signature_of(expected), f"{path.name}: {name} differs from the contract"
        # What a backend offers beyond the contract is named by its caller and has a default.
        options = functions[name].args
        assert all(default is not None for default in options.kw_defaults), f"{path.name}: an option of {name} has no default"
        assert not options.vararg
        assert not options.kwarg


def test_the_definition_takes_the_same_arguments_in_float64() -> None:
    definition = signature_of(functions_of(Path(reference.__file__))["train_slice"])[0]
    expected = [text.replace("FloatRows", "DoubleRows") for text in signature_of(CONTRACT["train_slice"])[0]]
    assert definition == expected


@pytest.mark.parametrize("record", [contract.Slice, contract.Noise, contract.Update, contract.SliceResult])
def test_records_of_the_contract_cannot_be_changed(record: type) -> None:
    values = dict.fromkeys(field.name for field in dataclasses.fields(record))
    made = record(**values)
    for name in values:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, name, 1)
