"""Train on several processes, each of which reads and tokenizes its own bands (D-CHAG).

Two processes: torchrun --nproc-per-node 2 examples/many_ranks.py
One: python examples/many_ranks.py; the numbers are the same.
"""

import os

import sciml_dchag as sd

ranks, first = int(os.environ.get("WORLD_SIZE", "1")), os.environ.get("RANK", "0") == "0"
name = f"kernel-on-{ranks}"
settings = dict(white="sample:maize_white", dark="sample:maize_dark", bands="400-900x100",
                index="brightness", split="spatial:0.62,guard=4", overwrite=True)  # fmt: skip
place = f"stores/{name}.zarr"
recipe = sd.load_recipe("sample:demo_plants").replace(
    name=name,
    data=dict(store=place),
    model=dict(partitions=4, aggregation="dchag-l"),  # belongs to the model, whatever the ranks
    training=dict(steps=50, log_every=10),
    parallel=dict(tp=ranks),
)
if first:  # the others wait for it in `train`
    sd.plants.prepare("sample:maize_kernel", place, **settings)
run = sd.train(recipe, f"runs/{name}", console=print)
if first:
    print(run)
