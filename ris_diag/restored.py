"""Weights that are restored from themselves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torch import Tensor, nn

from ris_diag.places import calling_place


@contextmanager
def own_weights_loaded() -> Iterator[list[tuple[str, str]]]:
    """Calls of `load_state_dict` that give a module the very tensors it has, while this is open.

    Yields:
        (class of the module, file:line) of each such call.
    """
    found: list[tuple[str, str]] = []
    original = nn.Module.load_state_dict

    def load(self: nn.Module, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        own = {name: t.data_ptr() for name, t in self.state_dict().items()}
        given = {n: t.data_ptr() for n, t in state_dict.items() if isinstance(t, Tensor)}
        same = any(given.values()) and all(own.get(name) == p for name, p in given.items())
        if same and (place := calling_place()):  # none where the toolkit restores
            found.append((type(self).__name__, place))
        return original(self, state_dict, *args, **kwargs)

    with patch.object(nn.Module, "load_state_dict", load):
        yield found
