"""Small networks, right and wrong; torch is imported where it is used."""

from typing import Literal

from mitocore import Head, Model, Window


class Small(Model):
    """Two layers that a test bends."""

    bend: Literal["", "zeros", "dropout", "in place"] = ""
    """What is odd about it; zeros are right."""

    def window(self):
        return Window((8, 16, 16))

    def heads(self):
        return (Head("fg", ("fg",)),)

    def build(self):
        from torch import nn
        from torch.nn.functional import dropout, relu

        bend = self.bend

        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.last = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 1, 1)
                if bend == "zeros":
                    nn.init.zeros_(self.last.weight)
                    nn.init.zeros_(self.last.bias)

            def forward(self, images):
                if bend == "in place":
                    images -= 0.1
                features = relu(self.first(images))
                return {"fg": self.last(dropout(features, 0.3) if bend == "dropout" else features)}

        return Network()
