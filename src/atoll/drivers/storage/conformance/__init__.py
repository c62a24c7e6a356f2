"""The conformance suite of storage drivers: what every driver must do, to be run by a driver's own tests.

    class TestMine(StorageConformance):
        @pytest.fixture
        def make(self, tmp_path):
            return lambda: MyDriver(Pool("p", tmp_path / "p"))

`make` gives a new driver object for always the same pool, as a restarted daemon has it. Needs root; the caller runs it in a
mount namespace of its own. `KillingConformance` repeats each operation and kills it at each of its steps.
"""

from atoll.drivers.storage.conformance.killing import KillingConformance
from atoll.drivers.storage.conformance.suite import StorageConformance

__all__ = ["KillingConformance", "StorageConformance"]
