"""Which model a scan uses: the index's own, the one that was asked for, or one that is chosen for a new index.

Conventions: `known` is what the index remembers of its model, None for a new index. A hop is a whole number of samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from embedindex.embed import hop_samples
from embedindex.errors import ModelMismatchError, UsageError, display_path
from embedindex.models import Model, ModelIdentity, ModelRequest, load_model, same_space
from embedindex.models.devices import can_use_device, find_devices, request_for_device
from embedindex.records import IndexModel
from embedindex.writer import model_mismatch


@dataclass(frozen=True)
class ModelQuestion:
    """What an index has and what was asked for.

    Attributes:
        folder: the index folder, for messages.
        known: the index's model.
        asked: the model that was asked for, None for the index's own.
        asked_hop_s: the hop that was asked for, None for the index's or the model's.
    """

    folder: str
    known: IndexModel | None
    asked: ModelRequest | None
    asked_hop_s: float | None

    def request(self) -> ModelRequest | None:
        """Return the request to load, None when there is neither an index's model nor one that was asked for."""
        if self.known is None:
            return self.asked
        if self.asked is None:
            return self.known.request
        if self.asked.precision == "auto":  # settled by the first scan
            return replace(self.asked, precision=self.known.request.precision)
        return self.asked

    def check(self) -> None:
        """Refuse what was asked for where the index has something else; loads a model only when one was asked for.

        Raises:
            ModelMismatchError: it has.
            ModelError: the model that was asked for cannot be loaded.
        """
        request = self.request()
        if self.known is None or request is None:
            return
        if self.asked is not None:
            model, hop_s = self.load(request)
            self.require_same(model.identity, hop_s)
        elif self.asked_hop_s is not None:
            sample_rate = self.known.identity.sample_rate
            hop_s = hop_samples(self.asked_hop_s, sample_rate) / sample_rate
            if hop_s != self.known.hop_s:
                raise ModelMismatchError(
                    f"{display_path(self.folder)}: this index has a window every {self.known.hop_s:g} s, not every "
                    f"{hop_s:g} s; leave out --hop, or start another index with --index DIR"
                )

    def load(self, request: ModelRequest) -> tuple[Model, float]:
        """Return the model of a request, and the hop in seconds that goes with it.

        Raises:
            ModelError: the model cannot be loaded.
        """
        model = load_model(request)
        identity, known = model.identity, self.known
        wanted = self.asked_hop_s
        if wanted is None:
            wanted = known.hop_s if known is not None and same_space(identity, known.identity) else model.default_hop_s
        return model, hop_samples(wanted, identity.sample_rate) / identity.sample_rate

    def require_same(self, identity: ModelIdentity, hop_s: float) -> None:
        """Refuse a model or hop that is not the index's.

        Raises:
            ModelMismatchError: it is not.
        """
        known = self.known
        if known is not None and (hop_s != known.hop_s or not same_space(identity, known.identity)):
            raise model_mismatch(self.folder, known, identity, hop_s)

    def on_device(self, request: ModelRequest, wanted: str, *, cluster: bool) -> tuple[ModelRequest, Model, float, str]:
        """Return the request, the model of it, the hop in seconds, and the device that is to compute the model.

        Args:
            request: what `request` gave, or was chosen.
            wanted: the choice of device (`models.devices.find_devices`).
            cluster: other machines do the work, each with the devices that it has.

        Raises:
            ModelError: the model cannot be loaded, or the device that was asked for is not there.
            UsageError: the model cannot be computed on the device that was asked for.
        """
        model, hop_s = self.load(request)
        if wanted == "cpu" or (not cluster and not find_devices(wanted, request.engine)):
            return request, model, hop_s, "cpu"
        better = request if cluster else request_for_device(model, request, self.asked)
        if better != request:
            model, hop_s = self.load(better)
        if can_use_device(model):
            return better, model, hop_s, wanted
        if wanted == "cuda":
            raise UsageError(
                f"--device cuda: {model.identity.name} is not computed there as this index has it; leave out --device, "
                "or use openl3 or aisfx with --precision fp32"
            )
        return request, model, hop_s, "cpu"
