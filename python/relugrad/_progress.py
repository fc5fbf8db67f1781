"""Progress of long work: a bar of tqdm, a callable, or nothing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

Event: TypeAlias = Mapping[str, Any]
Progress: TypeAlias = bool | Callable[[Event], object] | None
"""`None`: a bar if tqdm is installed; `True`, `False`: a bar or none; a callable gets each event as a
dict with its `kind`: ready, step, epoch, part, run, end. What it raises ends the work."""


@contextmanager
def watching(progress: Progress, unit: str) -> Iterator[Callable[[Event], object] | None]:
    """What to call with events."""
    if callable(progress):
        yield progress
        return
    tqdm = None if progress is False else _tqdm(required=progress is True)
    if tqdm is None:
        yield None
        return
    with tqdm(unit=unit) as bar:
        yield _Bar(bar)


def _tqdm(required: bool) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        if required:
            raise ImportError("a bar of progress needs tqdm: pip install tqdm") from error
        return None
    return tqdm


class _Bar:
    """A bar that follows steps, parts or runs."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def __call__(self, event: Event) -> None:
        kind = event["kind"]
        if kind == "step":
            self._reach(event["step"], event["steps"])
        elif kind == "part":
            self._reach(event["done"], event["parts"])
        elif kind == "epoch":
            shown = {"epoch": event["epoch"], "loss": f"{event['train_loss']:.4g}"}
            for name in ("validation_accuracy", "validation_mse"):
                if event.get(name) is not None:
                    shown[name] = f"{event[name]:.4g}"
            self.bar.set_postfix(shown, refresh=False)
        elif kind == "run":
            text = f"{event['regularizer']}, seed {event['seed']}"
            self.bar.set_postfix_str(text, refresh=False)
            self._reach(event["index"], event["runs"])
        elif kind == "end" and self.bar.total is not None:
            self._reach(self.bar.total, self.bar.total)

    def _reach(self, done: int, total: int) -> None:
        if self.bar.total != total:
            # What was done before it was resumed says nothing of the pace.
            self.bar.reset(total)
            self.bar.initial = max(done - 1, 0)
            self.bar.n = self.bar.initial
        # Parts may be told in another order by several threads.
        self.bar.update(max(done - self.bar.n, 0))
