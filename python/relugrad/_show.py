"""How objects show themselves in notebooks."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._relugrad import Network


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """A table of HTML."""
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"


def network_html(network: "Network") -> str:
    """The nodes of a network, one a row."""
    nodes = network.nodes
    names = [node["name"] or f"#{number}" for number, node in enumerate(nodes)]
    rows = [
        (
            number,
            name,
            node["operation"],
            ", ".join(names[read] for read in node["inputs"]),
            "×".join(map(str, node["shape"])),
            node["parameters"],
        )
        for number, (name, node) in enumerate(zip(names, nodes, strict=True))
    ]
    head = ("", "node", "operation", "reads", "shape", "parameters")
    return table(head, rows, repr(network))


def page(html: str, height: int = 640) -> str:
    """A whole page inside another."""
    return (
        f'<iframe srcdoc="{escape(html)}" width="100%" height="{height}" '
        'style="border:0" sandbox="allow-scripts"></iframe>'
    )
