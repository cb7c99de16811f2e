import gc
import weakref

from proxy.memory import tidy


class Knot:
    """Holds itself."""

    def __init__(self) -> None:
        self.own = self


def test_tidy_when_something_holds_itself_then_it_goes() -> None:
    gc.disable()
    try:
        left = weakref.ref(Knot())
        assert left() is not None
        tidy()
        assert left() is None
    finally:
        gc.enable()
