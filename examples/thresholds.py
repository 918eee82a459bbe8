"""One pass of the network, many thresholds: counts objects at each, and scores them if there is a truth.

    python examples/thresholds.py raw.tif examples/runs/train_mito/best.safetensors --truth mito.tif --voxel-size 5nm

The step is called `mito`, as in `train_mito.toml`, whose weights recommend it. A script needs no guard around its code.
"""

import argparse

import mitocore

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("volume", help="PATH[::KEY]")
parser.add_argument("weights", help="a name of `mitocore weights list`, or a file")
parser.add_argument("--truth", help="labels, PATH[::KEY]")
parser.add_argument("--voxel-size", help="where the file does not say it")
parser.add_argument("--thresholds", type=float, nargs="+", default=[0.3, 0.4, 0.5, 0.6, 0.7])
options = parser.parse_args()

with mitocore.segment(options.volume, options.weights, voxel_size=options.voxel_size) as result:
    for threshold in options.thresholds:
        with result.rerun({"mito.threshold": threshold}) as again:
            line = f"{threshold:.2f}  {again.record['steps']['mito']['objects']:6,} objects"
            if options.truth:
                scores = mitocore.evaluate(again["mito.instances"], options.truth, ["voxel"])
                line += f"  Dice {scores['voxel']['dice']:.3f}"
            print(line)
