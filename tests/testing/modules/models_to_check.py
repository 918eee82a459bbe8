"""Small networks, right and wrong; torch is imported where it is used."""

from typing import ClassVar

from mitocore import Head, Model, Window


class Small(Model):
    """Two layers; right."""

    odd: ClassVar[str] = ""

    def window(self):
        return Window((8, 16, 16))

    def heads(self):
        return (Head("fg", ("fg",)),)

    def build(self):
        from torch import nn
        from torch.nn.functional import dropout, relu

        odd = self.odd

        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.last = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 1, 1)
                if odd == "zeros":
                    nn.init.zeros_(self.last.weight)
                    nn.init.zeros_(self.last.bias)

            def forward(self, images):
                if odd == "in place":
                    images -= 0.1
                features = relu(self.first(images))
                return {"fg": self.last(dropout(features, 0.3) if odd == "dropout" else features)}

        return Network()


class ZeroHead(Small):
    """Begins with a last layer of zeros; right."""

    odd: ClassVar[str] = "zeros"


class AlwaysDropout(Small):
    """Leaves features out in evaluation too."""

    odd: ClassVar[str] = "dropout"


class ChangesWindow(Small):
    """Works in place."""

    odd: ClassVar[str] = "in place"
